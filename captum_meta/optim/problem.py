"""The problem of an inner loop: loss, rule and steps."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from captum_meta.optim.rules import UpdateRule

Tensors = dict[str, Tensor]
"""Tensors by name, each with a leading dimension of tasks."""


def twice_differentiable() -> AbstractContextManager[None]:
    """Within it, attention is computed by operations that have second derivatives: torch's fused ones have none."""
    context: AbstractContextManager[None] = sdpa_kernel(SDPBackend.MATH)
    return context


@dataclass(frozen=True)
class InnerProblem:
    """A batch of tasks, each minimising its own loss over its own fast parameters.

    Attributes:
        loss: from the fast parameters ``(T, *shape)`` to the sum of the tasks' losses. No task's loss may depend on
            another's parameters, so that the gradient of the sum is every task's own.
        rule: how a gradient changes the parameters.
        steps: number of updates.
    """

    loss: Callable[[Tensors], Tensor]
    rule: UpdateRule
    steps: int

    def gradient(self, parameters: Tensors, create_graph: bool) -> Tensors:
        """Gradients of each task's loss, 0 where no parameter acts on it; ``create_graph`` as in torch."""
        values = {name: v if v.requires_grad else v.detach().requires_grad_() for name, v in parameters.items()}
        with twice_differentiable() if create_graph else nullcontext():
            loss = self.loss(values)
        if not loss.requires_grad:
            return {name: torch.zeros_like(value) for name, value in values.items()}
        inputs = list(values.values())
        gradients = torch.autograd.grad(loss, inputs, create_graph=create_graph, allow_unused=True, materialize_grads=True)
        return dict(zip(values, gradients, strict=True))

    def closed_over(self, parameters: Tensors) -> list[Tensor]:
        """Tensors that the loss depends on besides the fast parameters: all that a backward pass would reach.

        They are leaves, such as the parameters that are not fast, found by evaluating the loss once.
        """
        values = {name: value.detach().requires_grad_() for name, value in parameters.items()}
        with torch.enable_grad():
            reached = _leaves(self.loss(values))
        return [leaf for leaf in reached if not any(leaf is value for value in values.values())]


def _leaves(value: Tensor) -> list[Tensor]:
    waiting, seen = [value.grad_fn], set()
    found: list[Tensor] = []
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if hasattr(node, "variable"):
            found.append(node.variable)
        waiting.extend(following for following, _ in node.next_functions)
    return found
