"""Differentiable forms of torch's optimizers: nothing in them is learned, and every step can be backpropagated through."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta.optim.problem import Tensors
from captum_meta.optim.rules import UpdateRule

_UNDER_THE_ROOT = 1e-30
"""Added under square roots, whose slope at 0 is infinite; the values of float32 do not change."""


class GradientDescent(UpdateRule):
    r"""Gradient descent, with momentum: :math:`v \leftarrow \mu v + \nabla,\ \theta \leftarrow \theta - \alpha v`.

    Args:
        rate: alpha; a tensor that requires a gradient receives one.
        momentum: mu, of :class:`torch.optim.SGD`; 0 is plain gradient descent, the inner loop of MAML.

    >>> rule = GradientDescent(0.1)
    >>> theta = {"w": torch.ones(1, 2)}  # one task
    >>> rule.update(0, theta, {"w": torch.full((1, 2), 2.0)}, rule.initial_memory(theta))[0]["w"]
    tensor([[0.8000, 0.8000]])
    """

    def __init__(self, rate: float | Tensor, momentum: float | Tensor = 0.0) -> None:
        super().__init__()
        self.rate, self.momentum = rate, momentum

    def initial_memory(self, parameters: Tensors) -> Tensors:
        return _zeros(parameters)

    def update(self, step: int, parameters: Tensors, gradients: Tensors, memory: Tensors) -> tuple[Tensors, Tensors]:
        velocity = {name: self.momentum * memory[name] + gradient for name, gradient in gradients.items()}
        return {name: value - self.rate * velocity[name] for name, value in parameters.items()}, velocity


class RMSProp(UpdateRule):
    r"""Steps over the root of the mean square of past gradients (Tieleman and Hinton 2012).

    .. math:: s \leftarrow \rho s + (1 - \rho) \nabla^2, \qquad
        \theta \leftarrow \theta - \alpha \nabla / (\sqrt{s} + \epsilon)

    Args:
        rate: alpha.
        decay: rho, called alpha by :class:`torch.optim.RMSprop`.
        eps: epsilon.
    """

    def __init__(self, rate: float | Tensor = 0.01, decay: float | Tensor = 0.99, eps: float = 1e-8) -> None:
        super().__init__()
        self.rate, self.decay, self.eps = rate, decay, eps

    def initial_memory(self, parameters: Tensors) -> Tensors:
        return _zeros(parameters)

    def update(self, step: int, parameters: Tensors, gradients: Tensors, memory: Tensors) -> tuple[Tensors, Tensors]:
        squares = {n: self.decay * memory[n] + (1 - self.decay) * gradients[n].square() for n in parameters}
        return {n: v - self.rate * gradients[n] / _root(squares[n], self.eps) for n, v in parameters.items()}, squares


class Adam(UpdateRule):
    r"""Adam (Kingma and Ba 2015), with its correction of the first steps.

    .. math:: m \leftarrow \beta_1 m + (1 - \beta_1) \nabla, \quad s \leftarrow \beta_2 s + (1 - \beta_2) \nabla^2, \quad
        \theta \leftarrow \theta - \alpha \frac{m / (1 - \beta_1^t)}{\sqrt{s / (1 - \beta_2^t)} + \epsilon}

    Args:
        rate: alpha.
        betas: beta_1 and beta_2.
        eps: epsilon.
    """

    def __init__(self, rate: float | Tensor = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8) -> None:
        super().__init__()
        self.rate, self.betas, self.eps = rate, betas, eps

    def initial_memory(self, parameters: Tensors) -> Tensors:
        return {f"{moment} {name}": value for moment in ("mean", "square") for name, value in _zeros(parameters).items()}

    def update(self, step: int, parameters: Tensors, gradients: Tensors, memory: Tensors) -> tuple[Tensors, Tensors]:
        first, second = self.betas
        mean = {n: first * memory[f"mean {n}"] + (1 - first) * g for n, g in gradients.items()}
        square = {n: second * memory[f"square {n}"] + (1 - second) * g.square() for n, g in gradients.items()}
        length = {n: _root(s / (1 - second ** (step + 1)), self.eps) for n, s in square.items()}
        rate = self.rate / (1 - first ** (step + 1))
        moved = {n: value - rate * mean[n] / length[n] for n, value in parameters.items()}
        return moved, {f"mean {n}": v for n, v in mean.items()} | {f"square {n}": v for n, v in square.items()}


def _zeros(parameters: Tensors) -> Tensors:
    return {name: torch.zeros_like(value) for name, value in parameters.items()}


def _root(squares: Tensor, eps: float) -> Tensor:
    return (squares + _UNDER_THE_ROOT).sqrt() + eps
