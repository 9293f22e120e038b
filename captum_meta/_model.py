"""The explained model is sacred: run it, read what it gives, and leave everything as it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@contextmanager
def unmoved_random_state(device: torch.device) -> Iterator[None]:
    """Put torch's global random state back afterwards, for models with dropout and methods that sample."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield


def reseed(device: torch.device) -> None:
    """Another random state, which the present one chooses; within :func:`unmoved_random_state`."""
    seed = int(torch.randint(2**31, ()))
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)


@contextmanager
def untouched(forward_func: Callable[..., Any], device: torch.device) -> Iterator[None]:
    """Restore the random state and, in train mode, the buffers of the model afterwards, also when it raises."""
    buffers = _moving_buffers(forward_func)
    with unmoved_random_state(device):
        try:
            yield
        finally:
            with torch.no_grad():
                for buffer, value in buffers:
                    buffer.copy_(value)


def _moving_buffers(forward_func: Callable[..., Any]) -> list[tuple[Tensor, Tensor]]:
    """Buffers that a forward may change (batch statistics in train mode), with copies of their values."""
    module = module_of(forward_func)
    if module is None or not any(part.training for part in module.modules()):
        return []
    return [(buffer, buffer.clone()) for buffer in module.buffers()]


def module_of(forward_func: Callable[..., Any]) -> nn.Module | None:
    """The module that is called: itself, that of a bound method, or of a ``functools.partial``; None behind a function."""
    while isinstance(forward_func, partial):
        forward_func = forward_func.func
    module = forward_func if isinstance(forward_func, nn.Module) else getattr(forward_func, "__self__", None)
    return module if isinstance(module, nn.Module) else None


def wide(tensor: Tensor) -> Tensor:
    """The tensor in a floating dtype of at least single precision."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def as_tensor(output: Any, device: torch.device) -> Tensor:
    """What ``forward_func`` gave, as a tensor.

    Raises:
        AssertionError: if it is neither a tensor nor made of numbers.
    """
    try:
        return output if isinstance(output, Tensor) else torch.as_tensor(output, device=device)
    except (TypeError, ValueError, RuntimeError) as error:
        raise AssertionError(
            f"forward_func gave a {type(output).__name__}, of which no output can be selected: pass a function that gives "
            "one tensor, such as lambda *x: model(*x).logits."
        ) from error


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
