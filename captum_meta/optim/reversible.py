"""SGD with momentum run backwards exactly, so that its unroll need not be kept (Maclaurin, Duvenaud and Adams 2015)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from captum_meta.optim.hypergradients import Hypergradient
from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.optim.rules import UpdateRule

DENOMINATOR = 2**12
"""Momenta are whole multiples of 1 / DENOMINATOR."""

_UNIT = 2.0**44
_LARGEST = 2.0**10


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
        self.log_rates = nn.Parameter(torch.full(shape, rate).log() / 10)
        self.logits = nn.Parameter(torch.full(shape, momentum).logit())

    def rates(self, step: int) -> Tensor:
        """Each tensor's rate, in the order of ``names``."""
        return (10 * self.log_rates[min(step, len(self.log_rates) - 1)]).exp()

    def momenta(self, step: int) -> Tensor:
        """Each tensor's momentum, in the order of ``names``."""
        return self.logits[min(step, len(self.logits) - 1)].sigmoid()

    def initial_memory(self, parameters: Tensors) -> Tensors:
        return {name: torch.zeros_like(value) for name, value in parameters.items()}

    def update(self, step: int, parameters: Tensors, gradients: Tensors, memory: Tensors) -> tuple[Tensors, Tensors]:
        rates = dict(zip(self.names, self.rates(step), strict=True))
        momenta = dict(zip(self.names, self.momenta(step), strict=True))
        velocity = {n: momenta[n] * memory[n] - rates[n] * gradients[n] for n in parameters}
        return {n: parameters[n] + velocity[n] for n in parameters}, velocity


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


class Reversible(Hypergradient):
    """Through every step of :class:`MomentumSGD`, by running it backwards: memory grows by the lost digits alone.

    These are log2(1 / momentum) bits a parameter a step. What ``problem.loss`` closes over counts as constant.

    Raises:
        TypeError: the rule is not :class:`MomentumSGD`.
        RuntimeError: at the backward pass, if the way back did not end bit for bit at the start.
    """

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        rule = problem.rule
        if not isinstance(rule, MomentumSGD):
            raise TypeError(f"Reversible runs MomentumSGD backwards, not {type(rule).__name__}: pass rule=MomentumSGD")
        steps = range(problem.steps)
        rates = torch.stack([rule.rates(s) for s in steps]) if steps else rule.log_rates[:0]
        momenta = torch.stack([rule.momenta(s) for s in steps]) if steps else rule.logits[:0]
        names = rule.names
        return dict(zip(names, _Loop.apply(problem, names, rates, momenta, *[start[n] for n in names]), strict=True))


class _Loop(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, problem: InnerProblem, names: list[str], rates: Tensor, momenta: Tensor, *start: Tensor) -> Any:
        whole = [_fixed(value.double()) for value in start]
        ctx.start = [value.clone() for value in whole]
        velocity = [torch.zeros_like(value) for value in whole]
        products = [ExactProduct(value) for value in whole]
        numerators = (momenta.double() * DENOMINATOR).round().clamp(1, DENOMINATOR - 1).long().tolist()
        dtypes = [value.dtype for value in start]
        for s in range(problem.steps):
            moves = _moves(_gradient(problem, names, whole, dtypes, False)[1], rates[s])
            for j, product in enumerate(products):
                velocity[j] = product.multiply(velocity[j], numerators[s][j]) + moves[j]
                whole[j] = whole[j] + velocity[j]
        ctx.problem, ctx.names, ctx.rates, ctx.numerators, ctx.dtypes = problem, names, rates, numerators, dtypes
        ctx.momenta, ctx.end = momenta, (whole, velocity, products)
        return tuple(_value(w, d) for w, d in zip(whole, dtypes, strict=True))

    @staticmethod
    def backward(ctx: Any, *outer: Tensor) -> Any:
        whole, velocity, products = list(ctx.end[0]), list(ctx.end[1]), ctx.end[2]
        to_start, to_velocity = list(outer), [torch.zeros_like(o) for o in outer]
        to_rates, to_momenta = torch.zeros_like(ctx.rates), torch.zeros_like(ctx.momenta)
        for s in reversed(range(ctx.problem.steps)):
            whole = [w - v for w, v in zip(whole, velocity, strict=True)]
            values, gradients = _gradient(ctx.problem, ctx.names, whole, ctx.dtypes, True)
            moves = _moves([g.detach() for g in gradients], ctx.rates[s])
            to_velocity = [v + o for v, o in zip(to_velocity, to_start, strict=True)]
            weights = [-r * v for r, v in zip(ctx.rates[s], to_velocity, strict=True)]
            curved = [(g, w) for g, w in zip(gradients, weights, strict=True) if g.requires_grad]
            if curved:
                found = torch.autograd.grad([g for g, _ in curved], values, [w for _, w in curved], allow_unused=True)
                to_start = [t if f is None else t + f for t, f in zip(to_start, found, strict=True)]
            for j, product in enumerate(products):
                velocity[j] = product.divide(velocity[j] - moves[j], ctx.numerators[s][j])
                to_rates[s, j] = -(to_velocity[j] * gradients[j].detach()).sum()
                to_momenta[s, j] = (to_velocity[j] * _value(velocity[j], ctx.dtypes[j])).sum()
                to_velocity[j] = ctx.numerators[s][j] / DENOMINATOR * to_velocity[j]
        for w, v, p, first in zip(whole, velocity, products, ctx.start, strict=True):
            _check(torch.equal(w, first) and not v.any() and not p.buffer.any())
        return None, None, to_rates, to_momenta, *to_start


def _fixed(values: Tensor) -> Tensor:
    """``values`` float64 in units of the fixed point."""
    if not bool((values.abs() < _LARGEST).all()):
        raise ValueError(
            f"A parameter or its step is not finite or beyond {_LARGEST:g}, which the fixed point cannot hold: "
            "lower the rates, scale the loss, or use Backprop."
        )
    return (values * _UNIT).round().long()


def _value(whole: Tensor, dtype: torch.dtype) -> Tensor:
    return (whole.double() / _UNIT).to(dtype)


def _moves(gradients: list[Tensor], rates: Tensor) -> list[Tensor]:
    return [_fixed(-r.double() * g.double()) for r, g in zip(rates, gradients, strict=True)]


def _gradient(
    problem: InnerProblem, names: list[str], whole: list[Tensor], dtypes: list[torch.dtype], create_graph: bool
) -> tuple[list[Tensor], list[Tensor]]:
    # Always with a graph, so that both directions run the same kernels.
    with torch.enable_grad():
        values = {n: _value(w, d).requires_grad_() for n, w, d in zip(names, whole, dtypes, strict=True)}
        gradients = problem.gradient(values, True)
    found = [gradients[name] for name in names]
    return list(values.values()), found if create_graph else [g.detach() for g in found]


def _check(exact: bool) -> None:
    if not exact:
        raise RuntimeError(
            "running the inner loop backwards did not return to its start bit for bit, so its gradient would be wrong: "
            "the loss gave different gradients the second time. Use torch.use_deterministic_algorithms(True), no dropout "
            "and one backward pass for each solve, or the hypergradient Backprop"
        )
