"""Whether attributions depend on what the model has learnt."""

from __future__ import annotations

from captum_meta import functional
from captum_meta.metrics.base import MethodMetric


class ParameterRandomisation(MethodMetric):
    """Rank correlation with the attributions of the randomised model. Range: [-1, 1]; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.parameter_randomisation`.

    >>> import torch
    >>> from torch import nn
    >>> blind = lambda module: lambda inputs: inputs
    >>> ParameterRandomisation(blind, nn.Linear(3, 1))(torch.tensor([[4.0, 1.0, 2.0]]))
    tensor(1.)
    """

    higher_is_better = False
    plot_lower_bound, plot_upper_bound = -1.0, 1.0
    _score = staticmethod(functional.parameter_randomisation)
