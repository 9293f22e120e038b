"""Backpropagation by segments, each computed again on the way back."""

from __future__ import annotations

from dataclasses import dataclass
from math import isqrt
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from captum_meta._numbers import at_least
from captum_meta.optim.hypergradients import KEEPS_GRAPH, Hypergradient
from captum_meta.optim.problem import InnerProblem, Tensors


class Segmented(Hypergradient):
    r"""The gradient of :class:`Backprop` in memory that grows with the square root of the steps, for about twice the time.

    Of S steps the states before every :math:`\lceil\sqrt S\rceil`-th are kept. The way back runs each segment again,
    keeps its states too, and differentiates its steps one by one: only one step's graph exists at a time (Chen et al. 2016;
    checkpointing modules, as PyTorch does, keeps more under a second derivative). The ordinary choice for long inner
    loops; any rule and any loss that gives the same gradient twice will do.

    Args:
        length: of a segment, in steps; the square root of their number by default.
    """

    uncompiled = KEEPS_GRAPH

    def __init__(self, length: int | None = None) -> None:
        self.length = None if length is None else at_least("length", length, 1)

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        if problem.steps == 0:
            return start
        length = self.length or 1 + isqrt(problem.steps - 1)
        memory = problem.rule.initial_memory(start)
        learned = [p for p in (*problem.rule.parameters(), *problem.closed_over(start)) if p.requires_grad]
        learned = list(dict.fromkeys(learned))
        loop = _Loop(problem, list(start), list(memory), length)
        end = _Segments.apply(loop, *start.values(), *memory.values(), *learned)
        return dict(zip(start, end, strict=True))


@dataclass(frozen=True)
class _Loop:
    """The inner loop over a flat list of tensors: first the parameters', then the memory's."""

    problem: InnerProblem
    names: list[str]
    memory_names: list[str]
    length: int

    def step(self, number: int, state: list[Tensor], create_graph: bool) -> list[Tensor]:
        parameters = dict(zip(self.names, state, strict=False))
        memory = dict(zip(self.memory_names, state[len(self.names) :], strict=True))
        with torch.enable_grad():
            gradients = self.problem.gradient(parameters, create_graph)
        moved, memory = self.problem.rule.update(number, parameters, gradients, memory)
        return [*[moved[name] for name in self.names], *[memory[name] for name in self.memory_names]]

    def step_backward(
        self, number: int, state: list[Tensor], learned: list[Tensor], outer: list[Tensor]
    ) -> tuple[list[Tensor], list[Tensor]]:
        """From gradients of the state after a step to those of the state before it and of the learned parameters."""
        with torch.enable_grad():
            before = [value.detach().requires_grad_(value.is_floating_point()) for value in state]
            after = self.step(number, before, create_graph=True)
        moved = [(value, gradient) for value, gradient in zip(after, outer, strict=True) if value.requires_grad]
        wanted = [value for value in (*before, *learned) if value.requires_grad]
        # What is closed over may have a graph of its own that all steps share.
        found = iter(
            torch.autograd.grad(
                [value for value, _ in moved],
                wanted,
                [gradient for _, gradient in moved],
                retain_graph=True,
                allow_unused=True,
                materialize_grads=True,
            )
        )
        to_state = [next(found) if value.requires_grad else torch.zeros_like(value) for value in before]
        return to_state, list(found)


class _Segments(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, loop: _Loop, *tensors: Tensor) -> tuple[Tensor, ...]:
        size = len(loop.names) + len(loop.memory_names)
        state = [value.detach() for value in tensors[:size]]
        ctx.loop, ctx.kept = loop, []
        for number in range(loop.problem.steps):
            if number % loop.length == 0:
                ctx.kept.append(state)
            state = loop.step(number, state, create_graph=False)
        ctx.save_for_backward(*tensors[size:])
        return tuple(state[: len(loop.names)])

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *outer: Tensor) -> Any:
        loop, learned = ctx.loop, list(ctx.saved_tensors)
        to_state = [*outer, *[torch.zeros_like(value) for value in ctx.kept[0][len(outer) :]]]
        to_learned = [torch.zeros_like(value) for value in learned]
        for segment in reversed(range(len(ctx.kept))):
            numbers = range(segment * loop.length, min((segment + 1) * loop.length, loop.problem.steps))
            states = [ctx.kept[segment]]
            for number in numbers[:-1]:
                states.append(loop.step(number, states[-1], create_graph=False))
            for number in reversed(numbers):
                to_state, further = loop.step_backward(number, states.pop(), learned, to_state)
                to_learned = [total + more for total, more in zip(to_learned, further, strict=True)]
        return None, *to_state, *to_learned
