"""Whether attributions add up to what the model's output does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum_meta import functional
from captum_meta.functional._arguments import Reduction
from captum_meta.metrics.base import ModelMetric


class CompletenessError(ModelMetric):
    r"""Gap between the attributions' sum and the output's change. Range: :math:`[0, \infty)`; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.completeness_error`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0]])
    >>> CompletenessError(lambda x: x.sum(1))(attributions=x - 1, inputs=x)
    tensor(2.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.completeness_error)

    def __init__(
        self, forward_func: Callable[..., Any], *, max_rows: int = 256, reduction: Reduction = "mean", **kwargs: Any
    ) -> None:
        super().__init__(forward_func, reduction, {"max_rows": max_rows}, **kwargs)


class Infidelity(ModelMetric):
    r"""Squared gap between attributions and output under perturbations. Range: :math:`[0, \infty)`; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.infidelity`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0]])
    >>> Infidelity(lambda x: x.sum(1))(attributions=x, inputs=x)
    tensor(0.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.infidelity)

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        perturb_func: Callable[..., Any] | None = None,
        n_perturb_samples: int = 10,
        normalise: bool = False,
        seed: int = 0,
        max_rows: int = 256,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        options = {
            "perturb_func": perturb_func,
            "n_perturb_samples": n_perturb_samples,
            "normalise": normalise,
            "seed": seed,
            "max_rows": max_rows,
        }
        super().__init__(forward_func, reduction, options, **kwargs)


class FaithfulnessCorrelation(ModelMetric):
    """Correlation of removed attributions with the output's fall. Range: [-1, 1]; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.faithfulness_correlation`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0, 2.0]])
    >>> FaithfulnessCorrelation(lambda x: x.sum(1))(attributions=x, inputs=x)
    tensor(1.)
    """

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = -1.0, 1.0
    _score = staticmethod(functional.faithfulness_correlation)

    def __init__(
        self,
        forward_func: Callable[..., Any],
        *,
        n_perturb_samples: int = 100,
        fraction: float = 0.2,
        seed: int = 0,
        max_rows: int = 256,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        options = {"n_perturb_samples": n_perturb_samples, "fraction": fraction, "seed": seed, "max_rows": max_rows}
        super().__init__(forward_func, reduction, options, **kwargs)
