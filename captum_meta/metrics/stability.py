"""How much attributions change when the inputs change a little."""

from __future__ import annotations

from captum_meta import functional
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
