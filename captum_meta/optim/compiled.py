"""Functions of parameters and rows as compiled graphs, with gradients taken inside them.

``torch.compile`` does not differentiate a compiled function twice, so the inner loop's gradient is taken within the graph:
the outer backward pass is then an ordinary one. What is compiled is one gradient, which every step calls; a graph of
the whole loop grows with its steps and took the compiler more than ten minutes for one step of all parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from types import FunctionType
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.types import _Rows


@dataclass(frozen=True)
class CompiledProblem(InnerProblem):
    """An inner problem whose gradient is a compiled function.

    Attributes:
        compiled: from the fast parameters to their gradients, in their order.
    """

    compiled: Callable[[Tensors], tuple[Tensor, ...]]

    def gradient(self, parameters: Tensors, create_graph: bool) -> Tensors:
        with torch.set_grad_enabled(create_graph):
            return dict(zip(parameters, self.compiled(parameters), strict=True))


class CompiledFunction:
    """``function(parameters, rows)`` as one graph, compiled at the first call for each shape of its arguments.

    Args:
        module: whose parameters and buffers the function reads; they count as further arguments.
        function: of tensors by name and rows to a tuple of tensors. It may take gradients, and may not look at values.
    """

    def __init__(self, module: nn.Module, function: Callable[[Tensors, Any], tuple[Tensor, ...]]) -> None:
        self.module, self.function = module, function
        self._graphs: dict[Hashable, Callable[..., tuple[Tensor, ...]]] = {}

    def __call__(self, parameters: Tensors, rows: _Rows) -> tuple[Tensor, ...]:
        own = {**dict(self.module.named_parameters()), **dict(self.module.named_buffers())}
        measured: list[Tensor] = []
        rows.map(lambda value: measured.append(value) or value)  # type: ignore[func-returns-value]
        tensors = [*parameters.values(), *own.values(), *measured]
        key = (*parameters, *[(value.shape, value.dtype, value.device, value.requires_grad) for value in tensors])
        if key not in self._graphs:
            self._graphs[key] = _compiled(self._of_tensors(list(parameters), list(own), rows))
        return self._graphs[key](*tensors)

    def _of_tensors(self, names: list[str], own: list[str], rows: _Rows) -> Callable[..., tuple[Tensor, ...]]:
        """The same as a function of tensors alone, in the order in which they are called."""

        def of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
            values = iter(tensors)
            parameters = {name: next(values) for name in names}
            replaced = {f"module.{name}": next(values) for name in own}
            arguments = (parameters, rows.map(lambda _: next(values)))
            result: tuple[Tensor, ...] = functional_call(_Within(self.module, self.function), replaced, arguments)
            return result

        return of_tensors


class _Within(nn.Module):
    """A function that is called while the parameters of a module are replaced."""

    def __init__(self, module: nn.Module, function: Callable[..., tuple[Tensor, ...]]) -> None:
        super().__init__()
        self.module, self.function = module, function

    def forward(self, *arguments: Any) -> tuple[Tensor, ...]:
        return self.function(*arguments)


def _compiled(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    torch.compiler.allow_in_graph(function)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return function(*tensors)

    # The compiler counts its graphs, and gives up after eight, by the code object.
    alone = FunctionType(call.__code__.replace(), globals(), closure=call.__closure__)
    compiled: Callable[..., tuple[Tensor, ...]] = torch.compile(alone, dynamic=False, fullgraph=True)
    return compiled
