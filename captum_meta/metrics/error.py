"""Distance of attributions from a reference."""

from __future__ import annotations

from typing import ClassVar

from captum_meta import functional
from captum_meta.functional._arguments import Tensors
from captum_meta.functional.error import relative, squared_errors
from captum_meta.metrics.base import ReferenceMetric


class AttributionError(ReferenceMetric):
    r"""Relative squared error. Range: :math:`[0, \infty)`, 1 for attributions of zero; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.attribution_error`. By default the sums of the
    formula run over all rows since the last reset, which are one task's.

    >>> import torch
    >>> metric = AttributionError()
    >>> metric(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
    tensor(0.5000)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.attribution_error)
    reductions: ClassVar[tuple[str, ...]] = ("pooled", "mean", "sum", "none")

    def update(self, attributions: Tensors, reference: Tensors, feature_mask: Tensors | None = None) -> None:
        """Add rows."""
        squared, size = squared_errors(attributions, reference, feature_mask)
        if self.reduction == "pooled":
            self._record(squared, size)
        else:
            self._record(relative(squared, size))
