"""Records of tensors, and operations on all of a record's fields, by the metadata of each field."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.nn import functional

Reverse = Callable[[Any, Any], Any]

_T = TypeVar("_T", bound="Record")


def part(dims: str = "", scale: int = 0, reverse: Reverse | None = None) -> dict[str, Any]:
    """Metadata of a record's field for padding, scaling and :meth:`Evidence.reversed`.

    Args:
        dims: letters that name its last dimensions, those that follow the batch's. Of M players, S coalitions and D elements
            rows of one model may have more than those of another.
        scale: the power of the model's output that it grows with.
        reverse: of :class:`Evidence`, what becomes of its value where input and baseline trade places and f its sign, from
            the value and the whole evidence; None where it stays.
    """
    return {"dims": dims.split(), "scale": scale, "reverse": reverse}


@dataclass(frozen=True)
class Record:
    """Tensors that share their leading batch dimensions: a field is a tensor, a dictionary of them, a record, or None.

    A field's metadata are those of :func:`part`.
    """

    def map(self: _T, function: Callable[[Tensor], Tensor]) -> _T:
        """Apply ``function`` to every tensor."""

        def apply(value: object) -> object:
            if isinstance(value, Record):
                return value.map(function)
            if isinstance(value, dict):
                return {name: function(entry) for name, entry in value.items()}
            return function(value) if isinstance(value, Tensor) else value

        return type(self)(**{each.name: apply(getattr(self, each.name)) for each in fields(self)})

    def __getitem__(self: _T, rows: int | slice | list[int] | Tensor | tuple[slice | Tensor | int, ...] | None) -> _T:
        return self.map(lambda tensor: tensor[rows])

    def to(self: _T, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> _T:
        """Move to ``device``; floating tensors also to ``dtype``."""
        return self.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def detach(self: _T) -> _T:
        """The same rows outside any autograd graph."""
        return self.map(Tensor.detach)

    def flattened(self: _T, n_batch: int) -> _T:
        """The first ``n_batch`` dimensions as one."""
        return self.map(lambda value: value.reshape(-1, *value.shape[n_batch:]))

    def times(self: _T, factor: Tensor) -> _T:
        """The record of the model times ``factor``, whose dimensions are the first of the batch's."""

        def scaled(value: Tensor, about: Mapping[str, Any]) -> Tensor:
            for _ in range(about.get("scale", 0)):
                value = value * factor[(..., *[None] * (value.dim() - factor.dim()))].to(value)
            return value

        return self._changed(lambda inner: inner.times(factor), scaled)

    def sizes(self) -> dict[str, int]:
        """The lengths of the named dimensions."""
        found: dict[str, int] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Record):
                found |= value.sizes()
            elif isinstance(value, Tensor):
                dims = each.metadata.get("dims", ())
                found |= dict(zip(dims, value.shape[value.dim() - len(dims) :], strict=True))
        return found

    def padded(self: _T, **sizes: int) -> _T:
        """The named dimensions lengthened to ``sizes``, such as ``M=7``; what is added is 0, or False."""

        def longer(value: Tensor, about: Mapping[str, Any]) -> Tensor:
            dims = about.get("dims", ())
            missing = [sizes.get(name, size) - size for name, size in zip(dims[::-1], value.shape[::-1], strict=False)]
            return functional.pad(value, [more for count in missing for more in (0, count)]) if any(missing) else value

        return self._changed(lambda inner: inner.padded(**sizes), longer)

    def shortened(self: _T, **sizes: int) -> _T:
        """The named dimensions cut after their first ``sizes``."""

        def shorter(value: Tensor, about: Mapping[str, Any]) -> Tensor:
            for index, name in enumerate(reversed(about.get("dims", ()))):
                if name in sizes:
                    value = value.narrow(-1 - index, 0, min(sizes[name], value.shape[-1 - index]))
            return value

        return self._changed(lambda inner: inner.shortened(**sizes), shorter)

    def _changed(
        self: _T, of_records: Callable[[Any], Any], of_tensors: Callable[[Tensor, Mapping[str, Any]], Tensor]
    ) -> _T:
        new = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if isinstance(value, Record):
                new[each.name] = of_records(value)
            elif isinstance(value, Tensor):
                new[each.name] = of_tensors(value, each.metadata)
        return replace(self, **new)

    @classmethod
    def concatenate(cls: type[_T], parts: Sequence[_T], dim: int = 0) -> _T:
        """Join rows along the batch dimension ``dim``; what one part lacks, the result lacks."""
        if len(parts) == 1:
            return parts[0]

        def join(values: Sequence[object]) -> object:
            if any(value is None for value in values):
                return None
            if isinstance(values[0], Record):
                return type(values[0]).concatenate(values, dim)  # type: ignore[arg-type]
            return torch.cat(values, dim)  # type: ignore[arg-type]

        return cls(**{each.name: join([getattr(part, each.name) for part in parts]) for each in fields(cls)})

    @classmethod
    def stack(cls: type[_T], parts: Sequence[_T]) -> _T:
        """Put rows of equal shapes behind a new leading dimension (a batch of tasks)."""
        return cls.concatenate([part.map(lambda tensor: tensor.unsqueeze(0)) for part in parts])
