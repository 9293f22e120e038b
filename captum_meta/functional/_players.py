"""Players: the features of a row, or its groups of features, each counted once."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta.functional._arguments import Tensors, as_tuple, flatten


@dataclass(frozen=True)
class Players:
    """Which player each of a row's ``D`` elements belongs to.

    Attributes:
        shapes: of the tensors that the elements come from, without the batch dimension.
        index: ``(B, D)`` int64; None where every element is a player of its own.
        present: ``(B, M)`` bool, False for padding of rows with fewer players.
    """

    shapes: tuple[torch.Size, ...]
    index: Tensor | None
    present: Tensor

    @classmethod
    def of(cls, tensors: tuple[Tensor, ...], feature_mask: Tensors | None) -> Players:
        """The players of ``tensors``, each ``(B, *features)``, under a mask as Captum takes it."""
        shapes = tuple(part.shape[1:] for part in tensors)
        n_rows, device = len(tensors[0]), tensors[0].device
        if feature_mask is None:
            width = sum(shape.numel() for shape in shapes)
            return cls(shapes, None, torch.ones(1, width, dtype=torch.bool, device=device).expand(n_rows, width))
        index = _dense(_flat_mask(feature_mask, tensors))
        n_players = int(index.max()) + 1
        present = torch.zeros(len(index), n_players, dtype=torch.bool, device=index.device).scatter(1, index, True)
        return cls(shapes, index.expand(n_rows, -1), present.expand(n_rows, -1))

    @property
    def counts(self) -> Tensor:
        """``(B,)``, the number of players of each row."""
        return self.present.sum(1)

    def take(self, rows: Tensor) -> Players:
        """The players of some rows."""
        return Players(self.shapes, None if self.index is None else self.index[rows], self.present[rows])

    def values(self, attributions: Tensors, name: str = "attributions") -> Tensor:
        """``(B, M)``, what each player was given: a group's value once, 0 for padding.

        Besides the inputs' shape, with a group's value repeated on its elements, ``(B, M)`` is taken as it is.
        """
        parts = as_tuple(attributions, name)
        flat = flatten(parts, name)
        n_rows, n_players = self.present.shape
        shapes = tuple(part.shape[1:] for part in parts)
        by_group = self.index is not None and shapes == (torch.Size([n_players]),) and shapes != self.shapes
        if len(flat) != n_rows or not (by_group or shapes == self.shapes):
            raise ValueError(
                f"{name} has shapes {[tuple(part.shape) for part in parts]}, but there are {n_rows} rows of features "
                f"{[tuple(shape) for shape in self.shapes]} in {n_players} players: pass one value per feature, or with "
                "a feature_mask one a group, (B, groups)."
            )
        if by_group:
            return flat * self.present
        return flat if self.index is None else self._values_of_groups(flat, self.index, name)

    def _values_of_groups(self, flat: Tensor, index: Tensor, name: str) -> Tensor:
        empty = flat.new_zeros(self.present.shape)
        values = empty.scatter_reduce(1, index, flat, "mean", include_self=False)
        spread = (values.gather(1, index) - flat).abs().amax(1)
        if (spread > 0.01 * flat.abs().amax(1)).any():
            raise ValueError(
                f"{name} differs within a group of the feature_mask, so the group has no single value: pass "
                "attributions of a method that was given the same feature_mask, or their sums by group, (B, groups)."
            )
        return values

    def spread(self, values: Tensor) -> Tensor:
        """A player's value on each of its elements, ``(B, D)``."""
        return values if self.index is None else values.gather(1, self.index)

    def shares(self, values: Tensor) -> Tensor:
        """A player's value divided among its elements, ``(B, D)``."""
        if self.index is None:
            return values
        sizes = torch.zeros_like(values).scatter_add(1, self.index, torch.ones_like(self.index, dtype=values.dtype))
        return self.spread(values / sizes.clamp(min=1))

    def any(self, elements: Tensor) -> Tensor:
        """``(B, M)`` bool, whether any element of the player is True in ``elements`` ``(B, D)``."""
        if self.index is None:
            return elements
        found = torch.zeros(self.present.shape, device=elements.device)
        return found.scatter_add(1, self.index, elements.float()) > 0

    def unflatten(self, flat: Tensor) -> tuple[Tensor, ...]:
        """``(N, D)`` back into tensors ``(N, *features)``."""
        parts = torch.split(flat, [shape.numel() for shape in self.shapes], 1)
        return tuple(part.reshape(len(flat), *shape) for part, shape in zip(parts, self.shapes, strict=True))


def _flat_mask(feature_mask: Tensors, tensors: tuple[Tensor, ...]) -> Tensor:
    """``(1, D)``, or ``(B, D)`` for a mask of its own for each row."""
    masks = feature_mask if isinstance(feature_mask, tuple) else (feature_mask,)
    shapes = [tuple(part.shape) for part in tensors]
    try:
        if len(masks) != len(tensors):
            raise RuntimeError
        paired = list(zip(masks, tensors, strict=True))
        shared = all(mask.dim() < part.dim() or len(mask) == 1 for mask, part in paired)
        rows = 1 if shared else len(tensors[0])
        parts = [mask.expand(rows, *part.shape[1:]).reshape(rows, -1) for mask, part in paired]
    except RuntimeError:
        got = [tuple(mask.shape) for mask in masks]
        raise ValueError(f"feature_mask has shapes {got}; pass one that broadcasts to each of {shapes}.") from None
    return torch.cat(parts, 1).long()


def _dense(ids: Tensor) -> Tensor:
    """Each row's group ids ``(B, D)`` renumbered 0, 1, ... in their order."""
    ordered, order = ids.sort(1)
    fresh = torch.zeros_like(ordered)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    return torch.empty_like(ids).scatter(1, order, fresh.cumsum(1))
