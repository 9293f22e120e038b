"""What an inner loop minimises, and by which rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta.optim.rules import UpdateRule

Tensors = dict[str, Tensor]
"""Tensors by name, each with a leading dimension of tasks."""


@dataclass(frozen=True)
class InnerProblem:
    """A batch of tasks, each minimising its own loss over its own fast parameters.

    Attributes:
        loss: from the fast parameters ``(T, *shape)`` to the sum of the tasks' losses. No task's loss may depend on
            another's parameters, so that the gradient of the sum is every task's own.
        rule: how a gradient changes the parameters.
        steps: how often.
    """

    loss: Callable[[Tensors], Tensor]
    rule: UpdateRule
    steps: int

    def gradient(self, parameters: Tensors, create_graph: bool) -> Tensors:
        """Gradient of each task's loss; with ``create_graph``, to be differentiated again."""
        values = {name: v if v.requires_grad else v.detach().requires_grad_() for name, v in parameters.items()}
        gradients = torch.autograd.grad(self.loss(values), list(values.values()), create_graph=create_graph)
        return dict(zip(values, gradients, strict=True))
