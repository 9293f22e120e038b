"""The players of a metric's rows: those of a game, and the attribution of each of them."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta import games
from captum_meta.functional._arguments import Tensors, as_tuple, flatten


class Players(games.Players):
    """Players with a row of the mask for each row of the batch; an attribution of a group counts once."""

    @classmethod
    def of(cls, inputs: tuple[Tensor, ...], feature_mask: Tensors | None = None) -> Players:
        """The players of ``inputs``, each ``(B, *features)``, under a mask as Captum takes it.

        Raises:
            ValueError: if the mask does not fit the inputs.
        """
        masks = feature_mask if feature_mask is None or isinstance(feature_mask, tuple) else (feature_mask,)
        try:
            found = games.Players.of(inputs, masks)
            groups = found.groups and tuple(group.expand(len(inputs[0]), -1) for group in found.groups)
            mask = found.mask.expand(len(inputs[0]), -1)
        except (AssertionError, RuntimeError):
            got = [tuple(mask.shape) for mask in masks or ()]
            shapes = [tuple(part.shape) for part in inputs]
            raise ValueError(f"feature_mask has shapes {got}; pass one that broadcasts to each of {shapes}.") from None
        return cls(found.shapes, groups, mask)

    @property
    def present(self) -> Bool[Tensor, "B M"]:
        """``(B, M)`` bool, False for padding of rows with fewer players."""
        return self.mask

    @property
    def counts(self) -> Int64[Tensor, " B"]:
        """``(B,)``, the number of players of each row."""
        return self.mask.sum(1)

    def take(self, rows: Int64[Tensor, " R"]) -> Players:
        """The players of some rows."""
        return Players(self.shapes, self.groups and tuple(group[rows] for group in self.groups), self.mask[rows])

    def values(self, attributions: Tensors, name: str = "attributions") -> Float[Tensor, "B M"]:
        """``(B, M)``, what each player was given: a group's value once, 0 for padding.

        Besides the inputs' shape, with a group's value repeated on its elements, ``(B, M)`` is taken as it is.
        """
        parts = as_tuple(attributions, name)
        flat = flatten(parts, name)
        n_rows, n_players = self.present.shape
        shapes = tuple(part.shape[1:] for part in parts)
        by_group = self.groups is not None and shapes == (torch.Size([n_players]),) and shapes != self.shapes
        if len(flat) != n_rows or not (by_group or shapes == self.shapes):
            raise ValueError(
                f"{name} has shapes {[tuple(part.shape) for part in parts]}, but there are {n_rows} rows of features "
                f"{[tuple(shape) for shape in self.shapes]} in {n_players} players: pass one value per feature, or with "
                "a feature_mask one a group, (B, groups)."
            )
        if by_group:
            return flat * self.present
        return flat if self.groups is None else self._values_of_groups(flat, torch.cat(self.groups, dim=1), name)

    def _values_of_groups(self, flat: Float[Tensor, "B D"], index: Int64[Tensor, "B D"], name: str) -> Float[Tensor, "B M"]:
        empty = flat.new_zeros(self.present.shape)
        values = empty.scatter_reduce(1, index, flat, "mean", include_self=False)
        spread = (values.gather(1, index) - flat).abs().amax(1)
        if (spread > 0.01 * flat.abs().amax(1)).any():
            raise ValueError(
                f"{name} differs within a group of the feature_mask, so the group has no single value: pass "
                "attributions of a method that was given the same feature_mask, or their sums by group, (B, groups)."
            )
        return values

    def shares(self, values: Float[Tensor, "B M"]) -> tuple[Tensor, ...]:
        """A player's value divided among its elements, in the inputs' shapes."""
        ones = tuple(torch.ones(len(values), *shape, dtype=values.dtype, device=values.device) for shape in self.shapes)
        return self.of_elements(values / self.collect(ones).clamp(min=1))

    def any(self, elements: Bool[Tensor, "B D"]) -> Bool[Tensor, "B M"]:
        """``(B, M)`` bool, whether any element of the player is True in ``elements`` ``(B, D)``."""
        return self.collect((elements.float(),)) > 0
