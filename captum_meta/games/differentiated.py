"""The explained model with gradients that stay in the graph, so that attributions can be differentiated."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor

from captum_meta._model import as_tensor, uncompiled, wide
from captum_meta.games.arguments import select_outputs
from captum_meta.games.players import Tensors


@dataclass(frozen=True)
class Differentiated:
    """A model whose gradients stay in the graph.

    Attributes:
        forward_func: the explained model.
        target: as in Captum, for the rows that are asked for.
        extra: additional arguments.
    """

    forward_func: Callable[..., Any]
    target: Any
    extra: tuple[Any, ...]

    def values(self, inputs: Tensors) -> Num[Tensor, " R"]:
        """f of the rows, ``(R,)``.

        Raises:
            AssertionError: if there is not one number for each row.
        """
        output = select_outputs(as_tensor(self.forward_func(*inputs, *self.extra), inputs[0].device), self.target)
        assert output.dim() > 0 and len(output) == output.numel() == len(inputs[0]), (
            f"forward_func gives an output of shape {tuple(output.shape)} for {len(inputs[0])} examples, but a path "
            "integral needs one number for each: pass target=."
        )
        return output.flatten()

    def gradients(self, inputs: Tensors) -> Tensors:
        """Gradients of f, for each input ``(R, *features)``, in single precision at least."""
        return self.gradients_and_values(inputs)[0]

    def gradients_and_values(self, inputs: Tensors) -> tuple[Tensors, Num[Tensor, " R"]]:
        """:meth:`gradients`, and f of the rows, ``(R,)``."""
        points = tuple(part if part.requires_grad else part.clone().requires_grad_() for part in inputs)
        with uncompiled():
            values = self.values(points)
            found = torch.autograd.grad(values.sum(), points, create_graph=True, allow_unused=True, materialize_grads=True)
        return tuple(map(wide, found)), values
