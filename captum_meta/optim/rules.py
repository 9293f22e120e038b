"""Update rules: from a gradient to one inner step.

A rule is a module whose parameters are meta-learned. What it remembers from step to step (a momentum, the hidden state of
a learned optimizer) is handed through it as plain tensors by name, so that unrolling it is an ordinary loop.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from math import inf, log

import torch
from torch import Tensor, nn

from captum_meta._numbers import at_least, positive, share


class UpdateRule(nn.Module, ABC):
    """``theta, memory = rule.update(step, theta, gradient, memory)`` over tensors ``(T, *shape)`` by name."""

    def initial_memory(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        """The memory before the first step."""
        return {}

    @abstractmethod
    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Parameters and memory after a step."""


class SGD(UpdateRule):
    r"""Gradient descent with a learned rate for each tensor at each step (MAML++, Antoniou et al. 2019).

    .. math:: \theta_{s+1,j} = \theta_{s,j} - \alpha_{s,j} \nabla_j, \qquad \alpha_{s,j} = e^{10 \rho_{s,j}}

    The 10 lets a rate change by 1 % where an outer optimizer such as Adam moves the learned rho by .001. Steps beyond
    those that were trained keep the last rates.

    Args:
        names: of the tensors.
        steps: how many steps have rates of their own.
        rate: the rate from which learning starts; learned rates stay positive.
    """

    def __init__(self, names: list[str], steps: int, rate: float) -> None:
        super().__init__()
        self.names = names
        self.log_rates = nn.Parameter(torch.full((max(1, steps), len(names)), log(positive("rate", rate)) / 10))

    def rates(self, step: int) -> dict[str, Tensor]:
        """Each tensor's rate."""
        rates = (10 * self.log_rates[min(step, len(self.log_rates) - 1)]).exp().unbind()
        return dict(zip(self.names, rates, strict=True))

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        rates = self.rates(step)
        return {name: value - rates[name] * gradients[name] for name, value in parameters.items()}, memory


class MomentumSGD(UpdateRule):
    r"""Gradient descent with momentum, a learned rate and momentum for each tensor at each step.

    .. math:: v \leftarrow \mu_{s,j} v - \alpha_{s,j} \nabla_j, \qquad \theta_j \leftarrow \theta_j + v

    Args:
        names: of the tensors.
        steps: how many steps have rates of their own; later steps keep the last.
        rate: the rate from which learning starts.
        momentum: that from which learning starts, between 0 and 1.
    """

    def __init__(self, names: list[str], steps: int, rate: float, momentum: float) -> None:
        super().__init__()
        self.names = names
        shape = (max(1, steps), len(names))
        self.log_rates = nn.Parameter(torch.full(shape, log(positive("rate", rate)) / 10))
        self.logits = nn.Parameter(torch.full(shape, log(share("momentum", momentum) / (1 - momentum))))

    def rates(self, step: int) -> Tensor:
        """Each tensor's rate, in the order of ``names``."""
        return (10 * self.log_rates[min(step, len(self.log_rates) - 1)]).exp()

    def momenta(self, step: int) -> Tensor:
        """Each tensor's momentum, in the order of ``names``."""
        return self.logits[min(step, len(self.logits) - 1)].sigmoid()

    def initial_memory(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: torch.zeros_like(value) for name, value in parameters.items()}

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        rates = dict(zip(self.names, self.rates(step), strict=True))
        momenta = dict(zip(self.names, self.momenta(step), strict=True))
        velocity = {n: momenta[n] * memory[n] - rates[n] * gradients[n] for n in parameters}
        return {n: parameters[n] + velocity[n] for n in parameters}, velocity


class ElementwiseSGD(UpdateRule):
    r"""Gradient descent with a learned rate for each element, of either sign (Meta-SGD, Li et al. 2017).

    .. math:: \theta_{s+1} = \theta_s - \alpha \circ \nabla

    Args:
        shapes: of the tensors without the dimension of tasks, by name.
        rate: the rate from which learning starts.
    """

    def __init__(self, shapes: Mapping[str, torch.Size], rate: float) -> None:
        super().__init__()
        self.names = list(shapes)
        at_least("rate", rate, -inf)
        self.rates = nn.ParameterList([nn.Parameter(torch.full(shape, rate)) for shape in shapes.values()])

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        by_name = dict(zip(self.names, self.rates, strict=True))
        return {name: value - by_name[name] * gradients[name] for name, value in parameters.items()}, memory


class Clipped(UpdateRule):
    r"""Another rule, with gradients clipped to a maximal length.

    .. math:: \nabla \leftarrow \nabla \min(1, c / |\nabla|)

    with the length over all tensors of a task.

    Args:
        rule: computes the step.
        length: c.
    """

    def __init__(self, rule: UpdateRule, length: float) -> None:
        super().__init__()
        self.rule, self.length = rule, positive("clip", length)

    def initial_memory(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.rule.initial_memory(parameters)

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return self.rule.update(step, parameters, self.clip(gradients), memory)

    def clip(self, gradients: dict[str, Tensor]) -> dict[str, Tensor]:
        """Gradients, shortened in tasks where they are too long."""
        squares = torch.stack([gradient.reshape(len(gradient), -1).square().sum(1) for gradient in gradients.values()]).sum(
            0
        )
        share = self.length * squares.clamp(min=self.length**2).rsqrt()
        return {name: share.reshape(-1, *[1] * (g.dim() - 1)) * g for name, g in gradients.items()}


def clipped(rule: UpdateRule, length: float | None) -> UpdateRule:
    """The rule with gradients clipped to ``length``; None: unclipped."""
    return rule if length is None else Clipped(rule, length)
