"""The rows to be explained, as the caller passed them, and the explained model's outputs for mixtures of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta._model import as_tensor, wide
from captum_meta.games.arguments import is_of_rows, select_outputs, take_rows, take_target
from captum_meta.games.players import Players, Tensors, join


@dataclass(frozen=True)
class Batch:
    """B examples with everything that belongs to them.

    Attributes:
        forward_func: the explained model, as in Captum.
        inputs, baselines: for each input ``(B, *features)``.
        target: as in Captum.
        extra: additional arguments of ``forward_func``; None for none.
        players: which player each element of the inputs belongs to.
    """

    forward_func: Callable[..., Any]
    inputs: Tensors
    baselines: Tensors
    target: Any
    extra: tuple[Any, ...] | None
    players: Players

    def __len__(self) -> int:
        return self.inputs[0].shape[0]

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.inputs[0].device

    @property
    def everyone(self) -> Int64[Tensor, " B"]:
        """The numbers of all rows, ``(B,)``."""
        return torch.arange(len(self), device=self.device)

    @property
    def elements(self) -> int:
        """Numbers in the inputs of one row."""
        return sum(tensor[0].numel() for tensor in self.inputs)

    def take(self, rows: Int64[Tensor, " R"]) -> Batch:
        """Some of the examples."""
        inputs, baselines = (tuple(part[rows] for part in parts) for parts in (self.inputs, self.baselines))
        return self.standing_for(rows, inputs, baselines)

    def standing_for(self, rows: Int64[Tensor, " R"], inputs: Tensors, baselines: Tensors) -> Batch:
        """Other inputs and baselines ``(R, *features)`` with all else that belongs to the rows ``(R,)``."""
        return replace(
            self,
            inputs=inputs,
            baselines=baselines,
            target=take_target(self.target, rows, len(self)),
            extra=self.extra and tuple(take_rows(value, rows, len(self)) for value in self.extra),
            players=self.players.rows(rows),
        )

    def between(self, rows: Int64[Tensor, " R"], alphas: Float[Tensor, " R"]) -> Tensors:
        """Points of the straight path from baseline (0) to input (1): ``alphas (R,)`` of the rows ``(R,)``."""
        at_ends = (alphas == 0) | (alphas == 1)
        ends = at_ends.nonzero().flatten() if bool(at_ends.any()) else None
        if ends is not None and len(ends) == len(rows):
            return self._ends(rows, alphas)
        parts, turns = [], self._turns(rows)
        for x, b, apart in zip(self.inputs, self.baselines, self.apart, strict=True):
            alpha = alphas.to(x.device).reshape(-1, *[1] * (x.dim() - 1))
            if turns:
                between = torch.addcmul(wide(b), alpha.unflatten(0, (turns, len(b))), apart).flatten(0, 1)
            else:
                start = b[:1] if b.stride(0) == 0 else b.index_select(0, rows)
                between = torch.addcmul(wide(start), alpha, apart.index_select(0, rows))
            parts.append(between.to(x.dtype))
        if ends is not None:
            for part, exact in zip(parts, self._ends(rows[ends], alphas[ends]), strict=True):
                part.index_copy_(0, ends, exact)
        return tuple(parts)

    def _ends(self, rows: Int64[Tensor, " R"], alphas: Float[Tensor, " R"]) -> Tensors:
        """The inputs of the rows ``(R,)`` where ``alphas (R,)`` are 1, else their baselines."""
        at_input = [(alphas == 1).reshape(-1, *[1] * (x.dim() - 1)) for x in self.inputs]
        parts = zip(at_input, self.inputs, self.baselines, strict=True)
        return tuple(torch.where(one, x.index_select(0, rows), b.index_select(0, rows)) for one, x, b in parts)

    def mixed(self, rows: Int64[Tensor, " R"], members: Bool[Tensor, "R M"]) -> Tensors:
        """Coalitions ``(R, M)`` of the rows ``(R,)``: inputs where the element's player is in it, baselines elsewhere."""
        keep = self.players.rows(rows).of_elements(members)
        parts = zip(keep, self.inputs, self.baselines, strict=True)
        return tuple(torch.where(k, x[rows], b[rows]) for k, x, b in parts)

    def effects(self, rows: Int64[Tensor, " R"], gradients: Tensors) -> Float[Tensor, "R M"]:
        """Gradient times (input - baseline), summed over each player's elements, ``(R, M)``.

        An element whose input is its baseline has no effect, whatever its gradient is.
        """
        products = []
        for gradient, x, b in zip(gradients, self.inputs, self.baselines, strict=True):
            end, start = x[rows], b[rows]
            products.append(torch.where(end == start, 0.0, gradient * (wide(end) - wide(start))))
        return self.players.rows(rows).collect(tuple(products))

    @cached_property
    def apart(self) -> Tensors:
        """Input minus baseline, for each input ``(B, *features)``."""
        return tuple(wide(x) - wide(b) for x, b in zip(self.inputs, self.baselines, strict=True))

    @cached_property
    def difference(self) -> Float[Tensor, "B elements"]:
        """:func:`change` from baseline to input, ``(B, elements)``."""
        return join(change(x, b) for x, b in zip(self.inputs, self.baselines, strict=True))

    @cached_property
    def finite(self) -> bool:
        """Whether all differences between inputs and baselines are finite."""
        return bool(self.difference.sum().isfinite()) or bool(self.difference.isfinite().all())

    def changed(self) -> Bool[Tensor, "B M"]:
        """Players of whom an element's input is not its baseline, ``(B, M)`` bool."""
        differs = tuple(
            ((x != b) & ~(_missing(x) & _missing(b))).to(torch.float32)
            for x, b in zip(self.inputs, self.baselines, strict=True)
        )
        return self.players.collect(differs) > 0

    def forward(self, x: Tensors, rows: Int64[Tensor, " R"]) -> Tensor:
        """The selected outputs for tensors that stand for the rows ``(R,)``."""
        return self.selected(self.outputs(x, rows), rows)

    def outputs(self, x: Tensors, rows: Int64[Tensor, " R"]) -> Tensor:
        """All outputs for tensors that stand for the rows ``(R,)``."""
        extra = self.extra or ()
        if not self._are_all(rows):
            extra = tuple(take_rows(value, rows, len(self)) for value in extra)
        return as_tensor(self.forward_func(*x, *extra), self.device)

    def selected(self, outputs: Tensor, rows: Int64[Tensor, " R"]) -> Tensor:
        """The outputs that the targets of the rows ``(R,)`` select."""
        return select_outputs(outputs, self.target if self._are_all(rows) else take_target(self.target, rows, len(self)))

    @property
    def shares_arguments(self) -> bool:
        """Whether no row has additional arguments of its own, so that the model answers for inputs whatever their row."""
        return len(self) == 1 or not any(is_of_rows(value, len(self)) for value in self.extra or ())

    def _turns(self, rows: Int64[Tensor, " R"]) -> int:
        """How often the rows are all of the batch in its order, one time after the other; 0 where they are not."""
        turns, rest = divmod(len(rows), len(self))
        return turns if rest == 0 and bool((rows.unflatten(0, (turns, len(self))) == self.everyone).all()) else 0

    def _are_all(self, rows: Int64[Tensor, " R"]) -> bool:
        """Whether the rows are those of the batch, in its order."""
        return len(rows) == len(self) and bool((rows == self.everyone).all())


def change(x: Tensor, start: Tensor) -> Tensor:
    """``x - start``; 0 where both are missing or infinite alike, and not finite where one of them is.

    >>> change(torch.tensor([3.0, torch.nan, torch.nan]), torch.tensor([1.0, torch.nan, 0.0]))
    tensor([2., 0., nan])
    """
    difference = wide(x) - wide(start)
    if bool(difference.sum().isfinite()):  # much cheaper than to ask all of them
        return difference
    return torch.where((x == start) | (_missing(x) & _missing(start)), 0.0, difference)


def _missing(tensor: Tensor) -> Tensor:
    return tensor.isnan() if tensor.is_floating_point() else torch.zeros_like(tensor, dtype=torch.bool)
