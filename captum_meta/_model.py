"""Runs the explained model and leaves it as it was."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache, partial
from threading import Lock
from typing import Any

import torch
from torch import Tensor, nn

_MOST_NUMBERS = 2**20
_CALLS = Lock()
_attention_was_fast: list[bool] = []
"""Whether attention was fast before each of the calls that have it slow now."""
_stances: list[Any] = []
"""What puts back the compiler's setting, for each of the calls that do without it now."""


@contextmanager
def unmoved_random_state(device: torch.device) -> Iterator[None]:
    """Put torch's global random state back afterwards, for models with dropout and methods that sample."""
    state = torch.get_rng_state()
    of_device = torch.cuda.get_rng_state(device) if device.type == "cuda" else None
    try:
        yield
    finally:
        torch.set_rng_state(state)
        if of_device is not None:
            torch.cuda.set_rng_state(of_device, device)


def reseed(device: torch.device) -> None:
    """A new random state, derived from the present one; for use within :func:`unmoved_random_state`."""
    seed = int(torch.randint(2**31, ()))
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def same_attention() -> Iterator[None]:
    """Attention is computed alike with and without gradients: without them padded tokens would come out as 0.

    Calls of several threads may overlap: the last one puts the setting back.
    """
    with _CALLS:
        _attention_was_fast.append(torch.backends.mha.get_fastpath_enabled())
        torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        with _CALLS:
            before = _attention_was_fast.pop()
            if not _attention_was_fast:
                torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def uncompiled(needed: bool = True) -> Iterator[None]:
    """What ``torch.compile`` has compiled runs as it was written: hooks are called, and graphs are kept as long as needed.

    Calls of several threads may overlap: the last one puts the setting back.
    """
    there_is_some = "torch._dynamo" in sys.modules and hasattr(torch.compiler, "set_stance")
    if not (needed and there_is_some):
        yield
        return
    with _CALLS:
        _stances.append(torch.compiler.set_stance("force_eager"))
    try:
        yield
    finally:
        with _CALLS:
            before = _stances.pop()
            if not _stances:
                before.__exit__(None, None, None)


@contextmanager
def untouched(forward_func: Callable[..., Any], device: torch.device) -> Iterator[None]:
    """Restore the random state and the buffers of the model afterwards, also when it raises."""
    module = module_of(forward_func)
    buffers = [] if module is None else _moving_buffers(module)
    with unmoved_random_state(device):
        try:
            yield
        finally:
            for buffers_of_part, name, buffer, value in buffers:
                _put_back(buffers_of_part, name, buffer, value)


def _moving_buffers(module: nn.Module) -> list[tuple[dict[str, Tensor | None], str, Tensor | None, Tensor | None]]:
    """Buffers that a forward may change, such as batch statistics, counters and hidden states, with copies of their values.

    States that do not exist yet are None. In eval mode those of many numbers are weights, as of quantised models, which
    would take memory.
    """
    every = [(part, name, buffer) for part in module.modules() for name, buffer in part._buffers.items()]
    return [
        (part._buffers, name, buffer, None if buffer is None else buffer.clone())
        for part, name, buffer in every
        if buffer is None or getattr(part, "training", False) or buffer.numel() <= _MOST_NUMBERS
    ]


def _put_back(buffers: dict[str, Tensor | None], name: str, buffer: Tensor | None, value: Tensor | None) -> None:
    """The buffer with its former value, unless another of other shape, such as a cache that grew, has replaced it."""
    if buffer is None or value is None:
        buffers[name] = None
        return
    with torch.inference_mode(buffer.is_inference()):
        buffer.data.copy_(value)  # in this way a graph of the caller that has saved the buffer stays valid
    now = buffers.get(name)
    if now is not None and now is not buffer and (now.shape, now.dtype) == (buffer.shape, buffer.dtype):
        buffers[name] = buffer


def module_of(forward_func: object) -> nn.Module | None:
    """The module that is called: itself, that of a bound method, or of a ``functools.partial``; None behind a function."""
    while isinstance(forward_func, partial):
        forward_func = forward_func.func
    module = forward_func if isinstance(forward_func, nn.Module) else getattr(forward_func, "__self__", None)
    return module if isinstance(module, nn.Module) else None


class Counted:
    """A model that counts the evaluations it is asked for: a row forward is 1, a row to be differentiated is 3."""

    def __init__(self, model: Callable[..., Any]) -> None:
        self.model, self.evaluations = model, 0
        self.__self__ = module_of(model)  # read by :func:`module_of`

    def __call__(self, *inputs: Any) -> Any:
        differentiated = torch.is_grad_enabled() and any(isinstance(x, Tensor) and x.requires_grad for x in inputs)
        self.evaluations += len(inputs[0]) * (3 if differentiated else 1)
        return self.model(*inputs)


def without_autocast(device: torch.device) -> AbstractContextManager[object]:
    """Operations in the tensors' own precision, where the explained model runs under autocast."""
    on = torch.amp.is_autocast_available(device.type) and torch.is_autocast_enabled(device.type)
    return torch.autocast(device.type, enabled=False) if on else nullcontext()


def wide(tensor: Tensor) -> Tensor:
    """The tensor in a floating dtype of at least single precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


_MOVES = re.compile(
    "(Alias|AsStrided|Cat|Clone|Expand|Flip|Gather|Index|IndexSelect|Permute|Repeat|ReshapeAlias|Select|Slice|Split|Squeeze|"
    "Stack|T|Transpose|Unbind|UnsafeView|Unsqueeze|View)Backward"
)
"""Operations that leave numbers as they are, by the names of their nodes in a graph."""


@lru_cache(maxsize=1024)
def _moves(name: str) -> bool:
    return _MOVES.match(name) is not None


def coarsest(output: Tensor) -> float:
    """The precision, as ``torch.finfo(dtype).eps``, of the coarsest numbers that are computed in the graph of the output.

    A model in half precision, or a part of it, may answer in single precision, and is rounded all the same. One that reads
    inputs in half precision and computes in a finer one is not.
    """
    left, seen, dtypes = [output.grad_fn], set(), {output.dtype}
    while left:
        node = left.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if further := node.next_functions:  # weights and inputs, which have none, are exact
            left += [before for before, _ in further]
            if not _moves(node.name()):
                dtypes.update([numbers.dtype for numbers in node._input_metadata])
    return max((torch.finfo(dtype).eps for dtype in dtypes if dtype.is_floating_point), default=0.0)


def as_tensor(output: Any, device: torch.device) -> Tensor:
    """What ``forward_func`` gave, as a tensor.

    Raises:
        AssertionError: if it is neither a tensor nor made of numbers.
    """
    try:
        tensor = output if isinstance(output, Tensor) else torch.as_tensor(output, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AssertionError(
            f"forward_func gave a {type(output).__name__}, of which no output can be selected: pass a function that gives "
            "one tensor, such as lambda *x: model(*x).logits."
        ) from error
    assert not tensor.is_complex(), (
        f"forward_func gave complex numbers ({tensor.dtype}), of which there is no largest: pass a function that gives real "
        "ones, such as lambda *x: model(*x).abs()."
    )
    return tensor


_NO_GRADIENT = (
    "Can't call numpy() on Tensor that requires grad",
    "does not require grad",
    "Inference tensors cannot be saved for backward",
    "the derivative for",
    "has been modified by an inplace operation",
    "You must implement either the backward or vjp method",
)


def says_no_gradient(error: Exception) -> bool:
    """Whether the error says that the model cannot be differentiated, rather than that something is wrong."""
    return any(sentence in str(error) for sentence in _NO_GRADIENT)
