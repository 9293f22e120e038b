"""A network called once for many tasks, each with weights of its own.

``torch.func.vmap`` does the same and was measured at half the speed: it dispatches every operation twice. Only the two
operations that read weights need to know of tasks, linear maps and normalisations, and these are batched here by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_T = TypeVar("_T")


def call_per_task(module: nn.Module, method: str, parameters: Mapping[str, Tensor], *arguments: Any) -> Any:
    """``module.method(*arguments)`` with some of its parameters replaced by those of each task.

    Args:
        module: made of linear maps and layer normalisations, called on tensors whose first dimension is of tasks.
        method: the name of what is called.
        parameters: ``(T, *shape)`` by name. A bias may also be ``(T, M, size)``: one for each index of the second-last
            dimension of what it is added to.
        arguments: of the call.
    """
    with _PerTask():
        replaced = {f"module.{name}": value for name, value in parameters.items()}
        return functional_call(_Calling(module, method), replaced, arguments)


class _Calling(nn.Module):
    """A module whose ``forward`` is another method, for :func:`torch.func.functional_call`."""

    def __init__(self, module: nn.Module, method: str) -> None:
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *arguments: Any) -> Any:
        return getattr(self.module, self.method)(*arguments)


class _PerTask(TorchFunctionMode):
    """Linear maps and layer normalisations whose parameters may have a leading dimension of tasks."""

    def __torch_function__(
        self, func: Callable[..., _T], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if func is functional.linear:
            return _linear(*args, **kwargs)
        if func is functional.layer_norm:
            return _layer_norm(*args, **kwargs)
        return func(*args, **kwargs)


def _linear(values: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    shared_bias = bias if bias is not None and bias.dim() == 1 else None
    if weight.dim() == 2:
        result = functional.linear(values, weight, shared_bias)
    elif bias is not None and bias.dim() == 2:
        flat = torch.baddbmm(bias.unsqueeze(1), values.flatten(1, -2), weight.mT)
        return flat.unflatten(1, values.shape[1:-1])
    else:
        result = (values.flatten(1, -2) @ weight.mT).unflatten(1, values.shape[1:-1])
        result = result if shared_bias is None else result + shared_bias
    return result if bias is None or bias.dim() == 1 else result + _aligned(bias, result)


def _layer_norm(
    values: Tensor, shape: list[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    if (weight is None or weight.dim() == 1) and (bias is None or bias.dim() == 1):
        return functional.layer_norm(values, shape, weight, bias, eps)
    normed = functional.layer_norm(values, shape, None, None, eps)
    scaled = normed if weight is None else normed * _aligned(weight, normed)
    return scaled if bias is None else scaled + _aligned(bias, scaled)


def _aligned(parameter: Tensor, values: Tensor) -> Tensor:
    """``(T, [M,] size)`` with dimensions of 1 put behind the tasks; ``(size,)`` as it is."""
    if parameter.dim() == 1:
        return parameter
    missing = values.dim() - parameter.dim()
    return parameter.reshape(len(parameter), *[1] * missing, *parameter.shape[1:])
