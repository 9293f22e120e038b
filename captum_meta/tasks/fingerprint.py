"""Hashes of what explanations depend on: weights, code, data and arguments."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from hashlib import blake2b
from typing import Any

import captum
import torch
from torch import Tensor, nn

_PLAIN = (int, float, complex, str, bytes, bool, type(None), torch.dtype, torch.device, torch.Size)
_PACKAGES = ("torch", "captum", "captum_meta", "builtins")
"""Code of these is identified by its name, and Captum's version; all other code by its source."""


def fingerprint(value: Any) -> str:
    """32 hexadecimal digits that change with the contents of ``value``, the same on every machine.

    Tensors and modules count with their weights, buffers, plain attributes and the source of their classes; functions with
    their source, defaults and what they close over (not with the global names they use).

    Raises:
        TypeError: if the value is of a kind that cannot be hashed by contents.

    >>> fingerprint(torch.ones(2)) == fingerprint(torch.ones(2)) != fingerprint(torch.zeros(2))
    True
    """
    digest = blake2b(digest_size=16)
    for part in _parts(value):
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _parts(value: Any) -> Iterator[Any]:
    if isinstance(value, _PLAIN):
        yield f"{type(value).__name__} {value!r}".encode()
    elif isinstance(value, Tensor):
        yield f"{value.dtype} {tuple(value.shape)}".encode()
        yield value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data
    elif isinstance(value, nn.Module):
        yield from _module(value)
    elif isinstance(value, partial):
        yield from _several("partial", (value.func, value.args, value.keywords))
    elif isinstance(value, type):
        yield _code(value)
    elif inspect.ismethod(value):
        yield from _several("method", (value.__self__, value.__func__.__qualname__))
    elif inspect.isfunction(value) or inspect.isbuiltin(value):
        yield from _function(value)
    elif isinstance(value, Mapping):
        yield from _several("mapping", [entry for pair in sorted(value.items()) for entry in pair])
    elif isinstance(value, Sequence | range):
        yield from _several("sequence", value)
    elif is_dataclass(value):
        yield from _several(type(value).__qualname__, [(f.name, getattr(value, f.name)) for f in fields(value)])
    else:
        raise TypeError(f"a {type(value).__name__} cannot be hashed by its contents")


def _several(kind: str, values: Sequence[Any]) -> Iterator[Any]:
    yield f"{kind} {len(values)}".encode()
    for value in values:
        yield from _parts(value)


def _module(module: nn.Module) -> Iterator[Any]:
    for name, part in module.named_modules():
        yield name.encode()
        yield _code(type(part))
        attributes = {
            key: value
            for key, value in vars(part).items()
            if not key.startswith("_") and key != "training" and _is_plain(value)
        }
        yield repr(sorted(attributes.items(), key=lambda item: item[0])).encode()
    for kind in (module.named_parameters, module.named_buffers):
        for name, tensor in kind():
            yield name.encode()
            yield from _parts(tensor)


def _is_plain(value: Any) -> bool:
    return isinstance(value, _PLAIN) or (isinstance(value, tuple) and all(isinstance(entry, _PLAIN) for entry in value))


def _function(function: Any) -> Iterator[Any]:
    yield _code(function)
    cells = getattr(function, "__closure__", None) or ()
    defaults = getattr(function, "__defaults__", None) or ()
    yield from _several("closure", [cell.cell_contents for cell in cells])
    yield from _several("defaults", defaults)


def _code(thing: Any) -> bytes:
    """Name and Captum's version, or name and source: not the module, which is ``__main__`` in a script."""
    package = (getattr(thing, "__module__", None) or "builtins").split(".")[0]
    if package in _PACKAGES:
        version = captum.__version__ if package == "captum" else ""
        return f"{thing.__module__}.{thing.__qualname__} {version}".encode()
    try:
        return f"{thing.__qualname__} {inspect.getsource(thing)}".encode()
    except (OSError, TypeError) as error:
        raise TypeError(f"the source of {thing.__qualname__} cannot be found") from error
