"""SGD with momentum run backwards exactly, so that its unroll need not be kept (Maclaurin, Duvenaud and Adams 2015)."""

from __future__ import annotations

from dataclasses import dataclass
from math import log2
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_meta.optim.hypergradients import KEEPS_GRAPH, Hypergradient
from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.optim.rules import Clipped, MomentumSGD

DENOMINATOR = 2**12
"""Momenta are whole multiples of 1 / DENOMINATOR."""

_UNIT = 2.0**44
_LARGEST = 2.0**10


class ExactProduct:
    """Multiplies whole numbers by ratios below 1 and takes it back, keeping the lost digits in a buffer."""

    def __init__(self, like: Tensor) -> None:
        self.buffer = torch.zeros_like(like)
        self.full: list[tuple[Tensor, int]] = []
        self.starts: list[bool] = []
        self.bound = 0
        self.bounds: list[int] = []

    def multiply(self, values: Tensor, numerator: int) -> Tensor:
        """``values`` times ``numerator / DENOMINATOR``, off by less than ``numerator``."""
        starts = self.bound * DENOMINATOR + DENOMINATOR > 2**62
        if starts:
            self.full.append((self.buffer, self.bound))
            self.buffer, self.bound = torch.zeros_like(self.buffer), 0
        self.starts.append(starts)
        self.bounds.append(self.bound)
        buffer = self.buffer * DENOMINATOR + values.remainder(DENOMINATOR)
        self.buffer = buffer.div(numerator, rounding_mode="floor")
        self.bound = (self.bound * DENOMINATOR + DENOMINATOR - 1) // numerator
        return values.div(DENOMINATOR, rounding_mode="floor") * numerator + buffer.remainder(numerator)

    def divide(self, values: Tensor, numerator: int) -> Tensor:
        """What the last :meth:`multiply` was given."""
        buffer = self.buffer * numerator + values.remainder(numerator)
        before = values.div(numerator, rounding_mode="floor") * DENOMINATOR + buffer.remainder(DENOMINATOR)
        self.buffer, self.bound = buffer.div(DENOMINATOR, rounding_mode="floor"), self.bounds.pop()
        if self.starts.pop():
            _check(not self.buffer.any())
            self.buffer, self.bound = self.full.pop()
        return before

    def bits(self) -> float:
        """How many bits all digits kept so far could need."""
        return sum(log2(bound + 1) for bound in (self.bound, *[bound for _, bound in self.full]))


class Reversible(Hypergradient):
    r"""The gradient of :class:`Backprop` through :class:`MomentumSGD`, by running it backwards.

    Memory grows by the digits alone that a product with a momentum mu loses: :math:`\log_2(1 / \mu)` bits per parameter and
    step. Parameters, velocities and steps are held as whole multiples of :math:`2^{-44}`, and momenta are rounded to
    multiples of 1/4096 (between 1/4096 and 4095/4096): the steps are not those of ``Backprop`` to the last digit, and the
    gradient is that of the rounded steps.

    Raises:
        TypeError: the rule is not :class:`MomentumSGD`, which may be :class:`Clipped`.
        ValueError: a parameter or a step is too large for the fixed point.
        RuntimeError: at the backward pass, if the way back did not end bit for bit at the start.
    """

    uncompiled = KEEPS_GRAPH

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        rule = problem.rule.rule if isinstance(problem.rule, Clipped) else problem.rule
        if not isinstance(rule, MomentumSGD):
            raise TypeError(
                f"Reversible runs MomentumSGD backwards, not {type(rule).__name__}: use a learner of that rule, such as "
                "MomentumMAML, or the hypergradient Segmented."
            )
        if problem.steps == 0:
            return start
        rates = torch.stack([rule.rates(step) for step in range(problem.steps)])
        momenta = torch.stack([rule.momenta(step) for step in range(problem.steps)])
        closed_over = [value for value in problem.closed_over(start) if value.requires_grad]
        values = [start[name] for name in rule.names]
        return dict(zip(rule.names, _Loop.apply(problem, rule.names, rates, momenta, *values, *closed_over), strict=True))


@dataclass(frozen=True)
class Kept:
    """The information buffer of a reversible loop.

    Attributes:
        bits: a parameter, that tell the way back.
        megabytes: of the whole numbers that hold them.
    """

    bits: float
    megabytes: float


def kept_bits(outcome: Tensor) -> Kept:
    """What :class:`Reversible` keeps for the way back from one of the tensors that it solved for."""
    products: list[ExactProduct] = getattr(outcome.grad_fn, "end")[2]  # noqa: B009
    sizes = [product.buffer.numel() for product in products]
    bits = sum(product.bits() * size for product, size in zip(products, sizes, strict=True)) / sum(sizes)
    words = sum((1 + len(product.full)) * size for product, size in zip(products, sizes, strict=True))
    return Kept(bits, 8 * words / 2**20)


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: InnerProblem, names: list[str], rates: Tensor, momenta: Tensor, *values: Tensor) -> Any:
        start, closed_over = values[: len(names)], values[len(names) :]
        whole = [_fixed(value.double()) for value in start]
        ctx.start = [value.clone() for value in whole]
        velocity = [torch.zeros_like(value) for value in whole]
        products = [ExactProduct(value) for value in whole]
        numerators = (momenta.double() * DENOMINATOR).round().clamp(1, DENOMINATOR - 1).long().tolist()
        dtypes = [value.dtype for value in start]
        for s in range(problem.steps):
            _, gradients = _gradient(problem, names, whole, dtypes)
            moves = _moves(gradients, rates[s])
            for j, product in enumerate(products):
                velocity[j] = product.multiply(velocity[j], numerators[s][j]) + moves[j]
                whole[j] = whole[j] + velocity[j]
        ctx.problem, ctx.names, ctx.rates, ctx.numerators, ctx.dtypes = problem, names, rates, numerators, dtypes
        ctx.momenta, ctx.end = momenta, (whole, velocity, products)
        ctx.save_for_backward(*closed_over)
        return tuple(_value(w, d) for w, d in zip(whole, dtypes, strict=True))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> Any:
        whole, velocity, products = list(ctx.end[0]), list(ctx.end[1]), ctx.end[2]
        closed_over = list(ctx.saved_tensors)
        # To the parameters, and behind them to what is closed over.
        to_values = [*outer, *[torch.zeros_like(value) for value in closed_over]]
        to_velocity = [torch.zeros_like(o) for o in outer]
        to_rates, to_momenta = torch.zeros_like(ctx.rates), torch.zeros_like(ctx.momenta)
        for s in reversed(range(ctx.problem.steps)):
            whole = [w - v for w, v in zip(whole, velocity, strict=True)]
            values, gradients = _gradient(ctx.problem, ctx.names, whole, ctx.dtypes)
            moves = _moves(gradients, ctx.rates[s])
            to_velocity = [v + o for v, o in zip(to_velocity, to_values, strict=False)]
            weights = [-r * v for r, v in zip(ctx.rates[s], to_velocity, strict=True)]
            further = _second_derivatives(gradients, [*values, *closed_over], weights)
            to_values = [total + more for total, more in zip(to_values, further, strict=True)]
            for j, product in enumerate(products):
                velocity[j] = product.divide(velocity[j] - moves[j], ctx.numerators[s][j])
                to_rates[s, j] = -(to_velocity[j] * gradients[j].detach()).sum()
                to_momenta[s, j] = (to_velocity[j] * _value(velocity[j], ctx.dtypes[j])).sum()
                to_velocity[j] = ctx.numerators[s][j] / DENOMINATOR * to_velocity[j]
        for w, v, p, first in zip(whole, velocity, products, ctx.start, strict=True):
            _check(torch.equal(w, first) and not v.any() and not p.buffer.any())
        return None, None, to_rates, to_momenta, *to_values


def _second_derivatives(gradients: list[Tensor], wanted: list[Tensor], weights: list[Tensor]) -> list[Tensor]:
    """Derivatives of the weighted sum of the gradients."""
    curved = [(gradient, weight) for gradient, weight in zip(gradients, weights, strict=True) if gradient.requires_grad]
    if not curved:
        return [torch.zeros_like(value) for value in wanted]
    # What is closed over may have a graph of its own that all steps share.
    return list(
        torch.autograd.grad(
            [gradient for gradient, _ in curved],
            wanted,
            [weight for _, weight in curved],
            retain_graph=True,
            allow_unused=True,
            materialize_grads=True,
        )
    )


def _fixed(values: Tensor) -> Tensor:
    """``values`` float64 in units of the fixed point."""
    if not bool((values.abs() < _LARGEST).all()):
        raise ValueError(
            f"A parameter or its step is not finite or beyond {_LARGEST:g}, which the fixed point cannot hold: "
            "lower the rates, scale the loss, or use the hypergradient Segmented."
        )
    return (values * _UNIT).round().long()


def _value(whole: Tensor, dtype: torch.dtype) -> Tensor:
    return (whole.double() / _UNIT).to(dtype)


def _moves(gradients: list[Tensor], rates: Tensor) -> list[Tensor]:
    return [_fixed(-r.double() * g.detach().double()) for r, g in zip(rates, gradients, strict=True)]


def _gradient(
    problem: InnerProblem, names: list[str], whole: list[Tensor], dtypes: list[torch.dtype]
) -> tuple[list[Tensor], list[Tensor]]:
    """Parameters and gradients; always with a graph, so that both directions run the same kernels."""
    with torch.enable_grad():
        values = {n: _value(w, d).requires_grad_() for n, w, d in zip(names, whole, dtypes, strict=True)}
        gradients = problem.gradient(values, create_graph=True)
        if isinstance(problem.rule, Clipped):
            gradients = problem.rule.clip(gradients)
    return list(values.values()), [gradients[name] for name in names]


def _check(exact: bool) -> None:
    if not exact:
        raise RuntimeError(
            "running the inner loop backwards did not return to its start bit for bit, so its gradient would be wrong: "
            "the loss gave different gradients the second time. Use torch.use_deterministic_algorithms(True), no dropout "
            "and one backward pass for each solve, or the hypergradient Segmented"
        )
