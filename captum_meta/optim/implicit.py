"""The hypergradient of an inner loop that ends at a minimum, whatever its steps were."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_meta._numbers import at_least
from captum_meta.optim.hypergradients import KEEPS_GRAPH, Hypergradient, iterates
from captum_meta.optim.problem import InnerProblem, Tensors


class Implicit(Hypergradient):
    r"""Implicit differentiation of a minimum (implicit MAML, Rajeswaran et al. 2019).

    At a minimum theta of the inner loss the gradient u(theta, phi) vanishes whatever the meta-parameters phi are, so

    .. math:: \frac{d\theta}{d\phi} = -\Big(\frac{\partial u}{\partial\theta}\Big)^{-1} \frac{\partial u}{\partial\phi}

    The linear system is solved by conjugate gradients, each task's on its own. The loss must hold the start in a
    proximal term (see :class:`captum_meta.learners.ImplicitMAML`), or the minimum does not depend on it; and be convex
    near the minimum. The rule and its rates get no gradient, and memory does not grow with the steps.

    Args:
        solver_steps: of conjugate gradients.
    """

    uncompiled = KEEPS_GRAPH

    def __init__(self, solver_steps: int = 10) -> None:
        self.solver_steps = at_least("solver_steps", solver_steps, 1)

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        *_, last = iterates(problem, {name: value.detach() for name, value in start.items()}, create_graph=False)
        minimum = {name: value.detach().requires_grad_() for name, value in last.items()}
        names = list(minimum)
        stationarity = list(problem.gradient(minimum, create_graph=True).values())

        def invert(*directions: Tensor) -> list[Tensor]:
            return conjugate_gradients(hessian_times, list(directions), self.solver_steps)

        def hessian_times(directions: list[Tensor]) -> list[Tensor]:
            with torch.enable_grad():
                return list(torch.autograd.grad(curvature, list(minimum.values()), directions, retain_graph=True))

        curvature = stationarity
        moved = _Moved.apply(invert, *stationarity)
        return {name: minimum[name].detach() + by for name, by in zip(names, moved, strict=True)}


class _Moved(torch.autograd.Function):
    """The minimum as a function of a shift of the gradient: identity forwards, minus the inverse Hessian backwards."""

    @staticmethod
    def forward(ctx: Any, invert: Callable[..., list[Tensor]], *stationarity: Tensor) -> tuple[Tensor, ...]:
        ctx.invert = invert
        return tuple(torch.zeros_like(value) for value in stationarity)

    @staticmethod
    def backward(ctx: Any, *directions: Tensor) -> Any:
        return None, *[-value for value in ctx.invert(*directions)]


def conjugate_gradients(times: Callable[[list[Tensor]], list[Tensor]], right: list[Tensor], steps: int) -> list[Tensor]:
    """Solve ``A x = right`` for symmetric positive definite A, one for each task of the leading dimension."""
    solution = [torch.zeros_like(value) for value in right]
    residual, direction = list(right), list(right)
    size = _dot(residual, residual)
    for _ in range(steps):
        image = times(direction)
        length = _ratio(size, _dot(direction, image))
        solution = [x + _each(length, x) * d for x, d in zip(solution, direction, strict=True)]
        residual = [r - _each(length, r) * a for r, a in zip(residual, image, strict=True)]
        smaller = _dot(residual, residual)
        factor = _ratio(smaller, size)
        direction = [r + _each(factor, r) * d for r, d in zip(residual, direction, strict=True)]
        size = smaller
    return solution


def _dot(left: list[Tensor], right: list[Tensor]) -> Tensor:
    """``(T,)``, over all tensors of a task."""
    return torch.stack([(a * b).reshape(len(a), -1).sum(1) for a, b in zip(left, right, strict=True)]).sum(0)


def _ratio(above: Tensor, below: Tensor) -> Tensor:
    """0 where the denominator is not positive: a task that is solved, or whose curvature is negative, stays."""
    positive = below > torch.finfo(below.dtype).tiny
    return torch.where(positive, above / torch.where(positive, below, 1.0), 0.0)


def _each(value: Tensor, like: Tensor) -> Tensor:
    return value.reshape(-1, *[1] * (like.dim() - 1))
