"""All fast tensors of a task as one vector, for rules that treat all coordinates alike."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Layout:
    """Positions of the tensors in the vector.

    Attributes:
        shapes: by name, in order, without the dimension of tasks.
    """

    shapes: dict[str, torch.Size]

    @classmethod
    def of(cls, tensors: dict[str, Tensor]) -> Layout:
        """That of tensors ``(T, *shape)``."""
        return cls({name: value.shape[1:] for name, value in tensors.items()})

    @property
    def sizes(self) -> list[int]:
        """Coordinates of each tensor."""
        return [shape.numel() for shape in self.shapes.values()]

    def flatten(self, tensors: dict[str, Tensor]) -> Tensor:
        """``(T, P)`` from ``(T, *shape)`` by name."""
        return torch.cat([tensors[name].reshape(len(tensors[name]), -1) for name in self.shapes], 1)

    def unflatten(self, flat: Tensor) -> dict[str, Tensor]:
        """The inverse of :meth:`flatten`."""
        parts = flat.split(self.sizes, 1)
        return {name: part.reshape(-1, *shape) for part, (name, shape) in zip(parts, self.shapes.items(), strict=True)}

    def rms(self, flat: Tensor, floor: float) -> Tensor:
        """Root mean square of each tensor, ``(..., P)`` to ``(..., J)``; the square of ``floor`` is added to each mean."""
        means = [part.mean(-1) for part in flat.square().split(self.sizes, -1)]
        return (torch.stack(means, -1) + floor**2).sqrt()

    def repeat(self, values: Tensor) -> Tensor:
        """A number of each tensor, ``(..., J)``, at each of its coordinates, ``(..., P)``."""
        parts = zip(values.split(1, -1), self.sizes, strict=True)
        return torch.cat([value.expand(*value.shape[:-1], size) for value, size in parts], -1)
