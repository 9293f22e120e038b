"""Implicit MAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from captum_meta.learners._config import HypergradientArgument, LossArgument
from captum_meta.learners._gradient import GradientLearner
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer
from captum_meta.optim import SGD, Implicit, InnerProblem, Tensors
from captum_meta.types import Explanations


class ImplicitMAML(GradientLearner):
    r"""MAML whose inner loop stays near the start, and is differentiated at its end alone (Rajeswaran et al. 2019).

    .. math:: \theta^* = \arg\min_\theta L_{support}(\theta) + \frac\lambda2 |\theta - \theta_0|^2

    Training costs no memory for the steps; the strength is learned with the start, the rate is not.

    Args:
        explainer: the network whose parameters are the initialisation.
        fast: names of the parameters that adapt, as patterns; all by default.
        steps: of gradient descent towards the minimum.
        rate: of each step.
        strength: lambda, from which it is learned.
        hypergradient: how training differentiates the minimum.
        inner_loss: what the inner loop minimises beside the proximal term.
        zero_shot: weight of the loss before adaptation in meta-training.
        outer_loss: what meta-training minimises, of the query rows; given as ``inner_loss``.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("*",),
        steps: int = 15,
        rate: float = 0.01,
        strength: float = 1.0,
        hypergradient: HypergradientArgument = None,
        inner_loss: LossArgument = scaled_squared_error,
        zero_shot: float = 0.0,
        outer_loss: LossArgument = relative_squared_error,
    ) -> None:
        super().__init__(
            explainer,
            fast,
            steps,
            lambda values: SGD(list(values), 1, rate),
            hypergradient or Implicit(),
            inner_loss,
            zero_shot,
            outer_loss,
        )
        self.log_strength = nn.Parameter(torch.tensor(strength).log())

    def compile(self, *args: object, **kwargs: object) -> None:
        raise ValueError("The proximal term of ImplicitMAML is not compiled: train it with compile=False.")

    def problem(
        self, support: Explanations, start: Tensors, used: Tensor | None = None, hidden: Tensor | None = None
    ) -> InnerProblem:
        plain = super().problem(support, start, used, hidden)

        def loss(parameters: Tensors) -> Tensor:
            return plain.loss(parameters) + self.log_strength.exp() / 2 * _squared_distance(parameters, start)

        return replace(plain, loss=loss)


def _squared_distance(parameters: Tensors, start: Tensors) -> Tensor:
    return torch.stack([(value - start[name]).square().sum() for name, value in parameters.items()]).sum()
