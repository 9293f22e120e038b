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
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.types import Record


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
        self._own = _owners(module)
        self._graphs: dict[Hashable, Callable[..., tuple[Tensor, ...]]] = {}

    def __call__(self, parameters: Tensors, rows: Record) -> tuple[Tensor, ...]:
        given = list(parameters.values())
        rows.map(lambda value: given.append(value) or value)  # type: ignore[func-returns-value]
        own = [owner[name] for _, owner, name in self._own]
        key = (*parameters, *[(value.shape, value.dtype, value.device, value.requires_grad) for value in given])
        if key not in self._graphs:
            self._graphs[key] = _compiled(self._of_tensors(list(parameters), rows))
        return self._graphs[key](*given, *own)

    def _of_tensors(self, names: list[str], rows: Record) -> Callable[..., tuple[Tensor, ...]]:
        """The same as a function of tensors alone, in the order in which they are called."""

        def of_tensors(*tensors: Tensor) -> tuple[Tensor, ...]:
            values = iter(tensors)
            parameters = {name: next(values) for name in names}
            arguments = (parameters, rows.map(lambda _: next(values)))
            replaced = {f"module.{name}": next(values) for name, _, _ in self._own}
            with _BiasApart():
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


class _BiasApart(TorchFunctionMode):
    """Products of matrices without their biases: added apart, these join what follows in one kernel.

    On CPUs a compiled product with a bias first copies the bias over all of its output: 8 % of a step.
    """

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is functional.linear:
            return _linear(*args, **(kwargs or {}))
        if func is torch.baddbmm:
            bias, left, right = args
            return left @ right + bias
        return func(*args, **(kwargs or {}))


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    product = functional.linear(values, weight)
    return product if bias is None else product + bias


def _owners(module: nn.Module) -> list[tuple[str, dict[str, Any], str]]:
    """Each parameter's and buffer's name, and where it is kept: to look for them at every call would take a while."""
    return [
        (f"{path}.{name}" if path else name, kept, name)
        for path, owner in module.named_modules()
        for kept in (owner._parameters, owner._buffers)
        for name, value in kept.items()
        if value is not None
    ]


def _compiled(function: Callable[..., tuple[Tensor, ...]]) -> Callable[..., tuple[Tensor, ...]]:
    torch.compiler.allow_in_graph(function)

    def call(*tensors: Tensor) -> tuple[Tensor, ...]:
        return function(*tensors)

    # The compiler counts its graphs, and gives up after eight, by the code object.
    alone = FunctionType(call.__code__.replace(), globals(), closure=call.__closure__)
    compiled: Callable[..., tuple[Tensor, ...]] = torch.compile(alone, dynamic=False, fullgraph=True)
    return compiled
