"""Players of a game: single elements of the inputs, or the groups of a Captum ``feature_mask``."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from captum_meta import _random

Tensors = tuple[Tensor, ...]

_MOST_ELEMENTS, _SUMS = 64, 32


@dataclass(frozen=True)
class Players:
    """The player of each element of the inputs.

    Attributes:
        shapes: of each input without its batch dimension.
        groups: for each input ``(B or 1, elements)`` int64, the player of each element; None if each is its own.
        mask: ``(B or 1, M)`` bool, False where a row has fewer players than others.
        ids: ``(B or 1, M)`` int64, what the feature mask calls each player, 0 for padding; None where there was no mask.
        most_elements: of the largest player of any row, so that some of the rows are gathered as all are.
    """

    shapes: tuple[torch.Size, ...]
    groups: Tensors | None
    mask: Bool[Tensor, "R M"]
    ids: Int64[Tensor, "R M"] | None = None
    most_elements: int = 1

    @classmethod
    def of(cls, inputs: Tensors, feature_mask: Tensors | None = None) -> Players:
        """Players of ``inputs``; ids in ``feature_mask`` may have gaps, span inputs, and differ between rows.

        Raises:
            AssertionError: if the masks are not one for each input, or do not broadcast to it.
        """
        shapes = tuple(tensor.shape[1:] for tensor in inputs)
        if feature_mask is None:
            count = sum(shape.numel() for shape in shapes)
            return cls(shapes, None, torch.ones(1, count, dtype=torch.bool, device=inputs[0].device))
        assert len(feature_mask) == len(inputs), (
            f"feature_mask has {len(feature_mask)} tensors for {len(inputs)} inputs: pass one mask for each input."
        )
        flat = [_flatten(mask, tensor) for mask, tensor in zip(feature_mask, inputs, strict=True)]
        rows = max(len(part) for part in flat)
        joint = torch.cat([part.expand(rows, -1) for part in flat], dim=1)
        dense, mask = _renumber(joint)
        ids = torch.zeros_like(mask, dtype=torch.long).scatter(1, dense, joint)
        return cls(shapes, dense.split([shape.numel() for shape in shapes], dim=1), mask, ids, _largest(dense, mask))

    @property
    def count(self) -> int:
        """M, the largest number of players of a row."""
        return int(self.mask.shape[1])

    def of_elements(self, values: Shaped[Tensor, "R M"]) -> Tensors:
        """Hand each element its player's value: ``(R, M)``, one row or all rows of a batch, to the inputs' shapes."""
        if self.groups is None:
            return self.unflatten(values)
        groups = torch.cat(self.groups, dim=1)
        rows = max(len(values), len(groups))
        return self.unflatten(values.expand(rows, -1).gather(1, groups.expand(rows, -1)))

    def unflatten(self, elements: Shaped[Tensor, "R E"]) -> Tensors:
        """Elements side by side ``(R, elements)``, in the inputs' shapes."""
        parts = elements.split([shape.numel() for shape in self.shapes], dim=1)
        return tuple(part.reshape(len(part), *shape) for part, shape in zip(parts, self.shapes, strict=True))

    def collect(self, elements: Tensors) -> Float[Tensor, "R M"]:
        """Sum over each player's elements: tensors of the inputs' shapes to ``(R, M)``."""
        joint = join(elements)
        if self.groups is None:
            return joint
        groups = torch.cat(self.groups, dim=1).expand(len(joint), -1)
        return joint.new_zeros(len(joint), self.count).scatter_add(1, groups, joint)

    def gather(self, elements: Tensors) -> Float[Tensor, "R M D"]:
        """Each player's elements side by side: tensors of the inputs' shapes to ``(R, M, D)``, 0 where a player has fewer.

        Where a player has more than 64 elements they are 32 sums of all of them with random signs (Achlioptas 2003).
        """
        joint = join(elements)
        if self.groups is None:
            return joint.unsqueeze(-1)
        groups = torch.cat(self.groups, dim=1)
        indices, most = _indices(groups), self.most_elements
        if self.apart:
            seats = (groups * most + indices).expand(len(joint), -1)
            return joint.new_zeros(len(joint), self.count * most).scatter(1, seats, joint).unflatten(1, (-1, most))
        signs = _random.uniform(torch.arange(most, device=joint.device), (_SUMS,), 0).round().to(joint) * 2 - 1
        sums = [self.collect((joint * sign[indices],)) for sign in signs.unbind(1)]
        return torch.stack(sums, dim=-1)

    @property
    def apart(self) -> bool:
        """Whether :meth:`gather` keeps all elements."""
        return self.most_elements <= _MOST_ELEMENTS

    def of_all_rows(self) -> Players:
        """The same, but that equal ids are one player in all rows; a row has also the players of other rows."""
        if self.groups is None or self.ids is None or len(self.mask) == 1:
            return self
        named = [self.ids.gather(1, group) for group in self.groups]
        ids, dense = torch.cat(named, dim=1).unique(return_inverse=True)
        mask = torch.ones(len(dense), len(ids), dtype=torch.bool, device=ids.device)
        groups = dense.split([group.shape[1] for group in self.groups], dim=1)
        return Players(self.shapes, groups, mask, ids.expand(len(dense), -1), _largest(dense, mask))

    def by_id(self, values: Float[Tensor, "R M"]) -> Float[Tensor, "R ids"]:
        """Values of players ``(R, M)`` in the columns of their ids, counted from the smallest; 0 where no one has the id."""
        if self.ids is None:
            return values
        columns = torch.where(self.mask, self.ids - self.smallest, 0).expand(values.shape)
        return values.new_zeros(len(values), self.width).scatter_add(1, columns, torch.where(self.mask, values, 0.0))

    @property
    def smallest(self) -> int:
        """Id of any row."""
        assert self.ids is not None
        return int(self.ids[self.mask].min()) if self.mask.any() else 0

    @property
    def width(self) -> int:
        """Columns of :meth:`by_id`."""
        if self.ids is None or not self.mask.any():
            return self.count
        return int(self.ids[self.mask].max()) - self.smallest + 1

    def from_ids(self, values: Float[Tensor, "R ids"]) -> Float[Tensor, "R M"]:
        """Values of players ``(R, M)`` from those in the columns of their ids, or as they are if these are as many."""
        if self.ids is None or values.shape[1] == self.count:
            return values
        columns = torch.where(self.mask, self.ids - self.smallest, 0)
        return torch.where(self.mask, values.gather(1, columns.expand(len(values), -1)), 0.0)

    def rows(self, index: Int64[Tensor, " R"]) -> Players:
        """The players of the rows ``index``."""
        if len(self.mask) == 1 and (self.groups is None or len(self.groups[0]) == 1):
            return self
        groups = self.groups and tuple(group[index] for group in self.groups)
        ids = None if self.ids is None else self.ids[index]
        return Players(self.shapes, groups, self.mask[index], ids, self.most_elements)


def join(tensors: Iterable[Tensor]) -> Tensor:
    """Tensors ``(B, *features)`` side by side, ``(B, elements)``."""
    parts = [tensor.unsqueeze(-1).flatten(1) for tensor in tensors]
    return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)


def _largest(groups: Int64[Tensor, "R E"], mask: Bool[Tensor, "R M"]) -> int:
    """Elements of the largest player of any row; 1 where there are none."""
    sizes = torch.zeros(mask.shape, dtype=torch.long, device=mask.device).scatter_add(1, groups, torch.ones_like(groups))
    return int(sizes.max()) if sizes.numel() else 1


def _indices(groups: Int64[Tensor, "R E"]) -> Int64[Tensor, "R E"]:
    """Which of its player's elements each is, counted from 0 in the order of the inputs, ``(R, E)``."""
    ordered, order = groups.sort(dim=1, stable=True)
    first = torch.searchsorted(ordered, ordered)
    counted = torch.arange(groups.shape[1], device=groups.device) - first
    return torch.zeros_like(groups).scatter(1, order, counted)


def _flatten(mask: Tensor, tensor: Tensor) -> Tensor:
    """The mask of one input as ``(1 or B, elements)``."""
    one = mask.dim() < tensor.dim() or mask.shape[0] == 1
    shape = (1, *tensor.shape[1:]) if one else tensor.shape
    try:
        return mask.expand(shape).reshape(shape[0], -1).long()
    except RuntimeError as error:
        raise AssertionError(
            f"feature_mask of shape {tuple(mask.shape)} does not fit an input of shape {tuple(tensor.shape)}: "
            "its dimensions must be 1 or those of the input."
        ) from error


def _renumber(ids: Int64[Tensor, "R E"]) -> tuple[Int64[Tensor, "R E"], Bool[Tensor, "R M"]]:
    """Ids ``(R, E)`` to dense ids 0 ... m-1 in each row, in the order of the ids, and the mask ``(R, M)``."""
    ordered, order = ids.sort(dim=1)
    fresh = torch.cat([torch.zeros_like(ordered[:, :1]), (ordered.diff(dim=1) != 0).long()], dim=1)
    dense = torch.zeros_like(ids).scatter(1, order, fresh.cumsum(1))
    counts = dense.amax(1) + 1 if ids.shape[1] else torch.zeros(len(ids), dtype=torch.long, device=ids.device)
    width = int(counts.max()) if len(counts) else 0
    return dense, torch.arange(width, device=ids.device) < counts.unsqueeze(1)
