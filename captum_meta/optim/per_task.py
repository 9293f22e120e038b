"""Calls a network once for many tasks, each with weights of its own.

``torch.func.vmap`` does it for any module. It was measured at half the speed of what is batched by hand here: it dispatches
every operation twice. Where only linear maps and normalisations read weights, only these need to know of tasks.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from captum_meta.types import Record

_T = TypeVar("_T")

_KNOWN = (nn.Sequential, nn.ModuleList, nn.Linear, nn.GELU, nn.ReLU, nn.SiLU, nn.Tanh, nn.Sigmoid, nn.Identity)


def call_per_task(module: nn.Module, method: str, parameters: Mapping[str, Tensor], *arguments: Any) -> Any:
    """``module.method(*arguments)`` with some of its parameters replaced by those of each task.

    Args:
        module: any; under ``torch.func.vmap`` it sees one task at a time, without the first dimension. Modules that vmap
            cannot run, as they look at values or change buffers, are called for one task after another.
        method: the name of what is called. It gives tensors, or rows of them, with the same shapes for all tasks.
        parameters: ``(T, *shape)`` by name. Where weights are batched by hand (:func:`batched_by_hand`), a bias may also
            be ``(T, M, size)``: one for each index of the second-last dimension of what it is added to.
        arguments: of the call: tensors or rows whose first dimension is of tasks, or other things.
    """
    replaced = {f"module.{name}": value for name, value in _everywhere(module, parameters).items()}
    calling = Calling(module, method)
    if batched_by_hand(module):
        with _PerTask():
            return functional_call(calling, replaced, arguments, tie_weights=False)
    return mapped(calling, replaced, arguments)


def _everywhere(module: nn.Module, parameters: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The parameters by all names under which the module holds them, each shared submodule once.

    ``functional_call`` ties names too, but leaves a part that is held twice with the tensor that stood in for its parameter.
    """
    held = {
        f"{prefix}.{name}" if prefix else name: value
        for prefix, part in module.named_modules()
        for name, value in part._parameters.items()
    }
    names: dict[int, list[str]] = {}
    for name, value in held.items():
        names.setdefault(id(value), []).append(name)
    return {same: value for name, value in parameters.items() for same in names[id(held[name])]}


def fast_names(module: nn.Module, patterns: Sequence[str], called: str = "module") -> list[str]:
    """Names of the module's parameters that fit one of the patterns.

    Raises:
        ValueError: if a pattern fits none; the message calls the module ``called``.

    >>> fast_names(nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 1)), ["1.*"])
    ['1.weight', '1.bias']
    """
    names = [name for name, _ in module.named_parameters()]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"No parameter of the {called} fits fast={pattern!r}: pass patterns of {names}.")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]


def same_for_all(module: nn.Module, names: Sequence[str], n_tasks: int) -> dict[str, Tensor]:
    """Parameters of the module as each task's own, ``(n_tasks, *shape)`` by name."""
    values = {name: module.get_parameter(name) for name in names}
    return {name: value.expand(n_tasks, *value.shape) for name, value in values.items()}


def batched_by_hand(module: nn.Module) -> bool:
    """Whether all of it is made of linear maps, normalisations and elementwise functions.

    A class may say so of itself by an attribute ``batched_by_hand = True``: it has no parameters of its own, its parts'
    weights are read by ``functional.linear`` and ``layer_norm`` alone, and leading dimensions may be those of tasks. That
    holds for the very class, and not for those that inherit from it.

    >>> batched_by_hand(nn.Sequential(nn.Linear(3, 4), nn.Tanh())), batched_by_hand(nn.Conv1d(3, 4, 1))
    (True, False)
    """
    return all(map(_is_known, module.modules()))


def _is_known(module: nn.Module) -> bool:
    kind = type(module)
    if kind is nn.LayerNorm:
        return len(module.normalized_shape) == 1  # type: ignore[arg-type]
    return kind in _KNOWN or (vars(kind).get("batched_by_hand", False) and not module._parameters)


def mapped(calling: nn.Module, parameters: Mapping[str, Tensor], arguments: Sequence[Any]) -> Any:
    """Each task's call, side by side where that can be, else one after another."""
    given, form = _taken_apart(arguments)
    results: list[Any] = []

    def call(own: dict[str, Tensor], *tensors: Tensor) -> tuple[Tensor, ...]:
        found, result = _taken_apart((functional_call(calling, own, tuple(form(tensors)), tie_weights=False),))
        results.append(result)
        return tuple(found)

    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="There is a performance drop")  # an operation that vmap loops over
            found = vmap(call, randomness="different")(dict(parameters), *given)
    except RuntimeError:  # of the module itself too, which then raises it again
        count = len(next(iter(parameters.values())))
        each = [call({n: v[task] for n, v in parameters.items()}, *(v[task] for v in given)) for task in range(count)]
        found = tuple(torch.stack(values) for values in zip(*each, strict=True))
    (result,) = results[-1](found)
    return result


def _taken_apart(values: Sequence[Any]) -> tuple[list[Tensor], Callable[[Iterable[Tensor]], list[Any]]]:
    """All tensors in ``values``, and a function that rebuilds the same structure from others."""
    tensors: list[Tensor] = []

    def each(value: Any, use: Callable[[Tensor], Tensor]) -> Any:
        if isinstance(value, Record):
            return value.map(use)
        if isinstance(value, Mapping):
            return {name: each(part, use) for name, part in value.items()}
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            return type(value)(*(each(part, use) for part in value))
        if isinstance(value, (tuple, list)):
            return type(value)(each(part, use) for part in value)
        return use(value) if isinstance(value, Tensor) else value

    def keep(tensor: Tensor) -> Tensor:
        tensors.append(tensor)
        return tensor

    def together(others: Iterable[Tensor]) -> list[Any]:
        rest = iter(others)
        return [each(value, lambda _: next(rest)) for value in values]

    for value in values:
        each(value, keep)
    return tensors, together


class Calling(nn.Module):
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
    if values.dim() == 2 and weight.dim() == 3:
        return _linear(values.unsqueeze(1), weight, bias).squeeze(1)
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
    values: Tensor, shape: Sequence[int], weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
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
