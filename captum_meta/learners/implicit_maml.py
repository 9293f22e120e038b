"""Implicit MAML."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from captum_meta._numbers import positive
from captum_meta.learners._gradient import GradientLearner
from captum_meta.nn import Explainer
from captum_meta.optim import SGD, Hypergradient, Implicit, InnerProblem, Tensors, UpdateRule
from captum_meta.types import Explanations


class ImplicitMAML(GradientLearner):
    r"""MAML whose inner loop stays near the start, and is differentiated at its end alone (Rajeswaran et al. 2019).

    .. math:: \theta^* = \arg\min_\theta L_{support}(\theta) + \frac\lambda2 |\theta - \theta_0|^2

    Training costs no memory for the steps; the strength is learned with the start, the rate is not.

    Args:
        explainer, fast: as in :class:`~captum_meta.learners.GradientLearner`.
        steps: of gradient descent towards the minimum.
        rate: of each step.
        strength: lambda, from which it is learned.
        clip: as in :class:`~captum_meta.learners.GradientLearner`; None by default.
        options: the further arguments of :class:`~captum_meta.learners.GradientLearner`.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("*",),
        steps: int = 15,
        rate: float = 0.01,
        *,
        strength: float = 1.0,
        clip: float | None = None,
        **options: Any,
    ) -> None:
        super().__init__(explainer, fast, steps, rate, clip=clip, **options)
        self.log_strength = nn.Parameter(torch.tensor(log(positive("strength", strength))))

    def make_rule(self, parameters: Tensors, rate: float) -> UpdateRule:
        return SGD(list(parameters), 1, rate)

    def own_hypergradient(self) -> Hypergradient:
        return Implicit()

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
