"""What evidence of any kind has for each row of a game: its key, its inputs, its outputs side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta import _random
from captum_meta._model import wide
from captum_meta.games import Game
from captum_meta.types import Coalitions, Evidence

_MAX_INPUT_PLAYERS = 4096


def row_keys(game: Game) -> Int64[Tensor, " N"]:
    """One int64 for each row of the game, a hash of its inputs and baselines: equal rows have equal keys in any batch.

    Rows that must be evaluated together have one key, so that their coalitions are the same.
    """
    keys = _random.row_keys((*game.inputs, *game.baselines))
    return keys.sum(0, keepdim=True).expand(game.n_rows) if game.together else keys


def player_inputs(game: Game) -> Float[Tensor, "N M 2"] | None:
    """Sums of each player's inputs and baselines, ``(N, M, 2)``; None where they are many, 0 where they are not numbers."""
    if game.players.count > _MAX_INPUT_PLAYERS or game.n_rows != game.n_examples:
        return None
    parts: Sequence[tuple[Tensor, ...]] = (game.inputs, game.baselines)
    sums = [game.players.collect(tuple(_numbers(tensor).float() for tensor in tensors)) for tensors in parts]
    return torch.stack(sums, dim=-1)


def with_elements(evidence: Evidence, game: Game) -> Evidence:
    """Evidence with the elements of the players; unchanged where it has them, or the model gives one number for a batch."""
    if evidence.elements is not None or game.n_rows != game.n_examples:
        return evidence
    sides = (tuple(map(_numbers, side)) for side in (game.inputs, game.baselines))
    elements = torch.stack([game.players.gather(side) for side in sides], dim=-1).to(evidence.effects)
    return replace(evidence, elements=elements.repeat_interleave(len(evidence.total) // len(elements), 0))


def outputs_first(values: Tensor) -> Tensor:
    """``(N, ..., K)`` to ``(N * K, ...)``."""
    return values.movedim(-1, 1).flatten(0, 1)


def per_output(
    members: Bool[Tensor, "N S M"], worths: Float[Tensor, "N S K"], measured: Bool[Tensor, "N S K"]
) -> Coalitions:
    """Coalitions ``(N, S, M)`` whose worths, and whether they are known, are ``(N, S, K)``, as ``(N * K, S, ...)``."""
    repeated = members.repeat_interleave(worths.shape[-1], 0)
    return Coalitions(repeated, outputs_first(worths), outputs_first(measured))


def _numbers(tensor: Tensor) -> Tensor:
    """Real numbers, of complex ones their sizes, that are finite."""
    numbers = tensor.abs() if tensor.is_complex() else wide(tensor)
    return numbers if bool(numbers.sum().isfinite()) else numbers.nan_to_num(0.0)
