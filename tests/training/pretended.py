"""A pretended second device, so that a machine without a GPU can tell whether code would run on one.

Its tensors compute on the CPU, but say that they lie elsewhere (on ``meta``, the one other device that every build of torch
knows) and, as CUDA's do, refuse to meet the CPU's, to be drawn by the CPU's generators and to become numpy arrays.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map

ELSEWHERE = torch.device("meta")
HERE = torch.device("cpu")
_aten = torch.ops.aten
_CROSSING = {_aten._to_copy.default, _aten.copy_.default}
_READING = {_aten.index.Tensor}
_WRITING = {_aten.index_put.default, _aten.index_put_.default, _aten._index_put_impl_.default}


class Pretended(Tensor):
    """A tensor that lies elsewhere."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> Pretended:
        layout = {"strides": inner.stride(), "storage_offset": inner.storage_offset()}
        made = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, dispatch_device=True, **layout)
        made.inner = inner
        return made

    def tolist(self) -> Any:
        return self.inner.tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert a tensor that lies elsewhere to numpy: use Tensor.cpu() first")

    __array__ = numpy

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Operations(TorchDispatchMode):
    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return _run(func, args, kwargs or {})


class _Constructors(TorchFunctionMode):
    """``torch.tensor`` fills its result before any operation is dispatched."""

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        device = kwargs.get("device")
        if func in (torch.tensor, torch.as_tensor) and device is not None and not isinstance(args[0], Tensor):
            return func(*args, **{**kwargs, "device": HERE}).to(device)
        return func(*args, **kwargs)


def _recorded(mode: bool = True) -> AbstractContextManager[None]:
    """In place of inference mode, in which operations reach their kernels past those who look on."""
    return torch.set_grad_enabled(torch.is_grad_enabled() and not mode)


@contextmanager
def elsewhere() -> Iterator[torch.device]:
    """Inside, tensors and modules can be moved to the device that is given."""
    torch.__future__.set_overwrite_module_params_on_conversion(True)
    try:
        with _Operations(), _Constructors(), patch.object(torch, "inference_mode", _recorded):
            yield ELSEWHERE
    finally:
        torch.__future__.set_overwrite_module_params_on_conversion(False)


def _run(func: Any, args: Any, kwargs: dict[str, Any]) -> Any:
    if func is torch.ops.prim.device.default:
        return ELSEWHERE
    there = _check(func, args, kwargs)
    plain = {name: _plain(value) for name, value in kwargs.items()}
    if kwargs.get("device") is not None:
        there = torch.device(kwargs["device"]) == ELSEWHERE
        plain["device"] = HERE
    if there and kwargs.get("generator") is not None:
        raise RuntimeError(f"{func}: expected a generator of the device elsewhere, found the CPU's")
    result = func(*_plain(args), **plain)
    if args and isinstance(args[0], Pretended) and result is args[0].inner:
        return args[0]
    return tree_map(lambda value: Pretended(value) if isinstance(value, Tensor) else value, result) if there else result


def _check(func: Any, args: Any, kwargs: dict[str, Any]) -> bool:
    """Whether the result lies elsewhere; raises where tensors of both places meet (numbers, and indices of CUDA's, may)."""
    tensors = [value for value in tree_leaves((args, kwargs)) if isinstance(value, Tensor)]
    there = any(isinstance(value, Pretended) for value in tensors)
    if func in _CROSSING:
        return isinstance(args[0], Pretended)
    first = bool(args) and isinstance(args[0], Pretended)
    if func in _READING | _WRITING and first:
        tensors = [args[0], args[2]] if func in _WRITING else [args[0]]
    if there and any(not isinstance(value, Pretended) and value.dim() > 0 for value in tensors):
        shapes = [(type(value).__name__, tuple(value.shape)) for value in tensors]
        raise RuntimeError(f"{func}: expected all tensors to be on the same device, found {shapes}")
    return there


def _plain(values: Any) -> Any:
    return tree_map(lambda value: value.inner if isinstance(value, Pretended) else value, values)
