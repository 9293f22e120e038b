"""How much attributions change when the inputs change a little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum_meta import functional
from captum_meta.functional._arguments import Reduction
from captum_meta.metrics.base import MethodMetric


class MaxSensitivity(MethodMetric):
    r"""Greatest relative change of the attributions near the input. Range: :math:`[0, \infty)`; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.max_sensitivity`.

    >>> import torch
    >>> MaxSensitivity(lambda x: torch.ones_like(x))(torch.tensor([[4.0, 1.0]]))
    tensor(0.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.max_sensitivity)

    def __init__(
        self,
        explanation_func: Callable[..., Any],
        *,
        perturb_radius: float = 0.02,
        n_perturb_samples: int = 10,
        norm_ord: Any = "fro",
        seed: int = 0,
        max_rows: int = 256,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        options = {
            "perturb_radius": perturb_radius,
            "n_perturb_samples": n_perturb_samples,
            "norm_ord": norm_ord,
            "seed": seed,
            "max_rows": max_rows,
        }
        super().__init__((explanation_func,), reduction, options, **kwargs)


class LocalLipschitz(MethodMetric):
    r"""Greatest change of the attributions relative to the inputs'. Range: :math:`[0, \infty)`; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.local_lipschitz`.

    >>> import torch
    >>> LocalLipschitz(lambda x: 2 * x)(torch.zeros(1, 2))
    tensor(2.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.local_lipschitz)

    def __init__(
        self,
        explanation_func: Callable[..., Any],
        *,
        perturb_radius: float = 0.02,
        n_perturb_samples: int = 10,
        seed: int = 0,
        max_rows: int = 256,
        reduction: Reduction = "mean",
        **kwargs: Any,
    ) -> None:
        options = {
            "perturb_radius": perturb_radius,
            "n_perturb_samples": n_perturb_samples,
            "seed": seed,
            "max_rows": max_rows,
        }
        super().__init__((explanation_func,), reduction, options, **kwargs)
