"""How few players carry an attribution."""

from __future__ import annotations

from captum_meta import functional
from captum_meta.functional._arguments import Tensors
from captum_meta.metrics.base import ExplanationMetric


class _Concentration(ExplanationMetric):
    def update(self, attributions: Tensors, feature_mask: Tensors | None = None) -> None:
        """Add rows."""
        self._score_rows(attributions=attributions, feature_mask=feature_mask)


class Sparseness(_Concentration):
    """Gini index of the magnitudes of attributions. Range: [0, 1 - 1/M] for M players; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.sparseness`.

    >>> import torch
    >>> Sparseness()(torch.tensor([[0.0, 3.0]]))
    tensor(0.5000)
    """

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = 0.0, 1.0
    _score = staticmethod(functional.sparseness)


class Complexity(_Concentration):
    """Entropy of the magnitudes of attributions. Range: [0, log M] for M players; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.complexity`.

    >>> import torch
    >>> Complexity()(torch.tensor([[1.0, 1.0]]))
    tensor(0.6931)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.complexity)
