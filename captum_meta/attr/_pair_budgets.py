"""How many pairs of a coalition and a background row are evaluated by default."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta._warnings import warn
from captum_meta.evidence.shapley import BORDER_PLAYERS
from captum_meta.games import MeanGame

_PAIRS, _MAX_PAIRS = 64, 2048
"""Default number of pairs: per player, and at most in all; so many are all evaluated."""


def default_pairs(game: MeanGame) -> Tensor:
    """Default number of pairs of each row, ``(N,)``: all where few are, which takes less time than to expect the rest."""
    n_players = game.mask.sum(1)
    every = (2.0**n_players - 2).clamp(min=1) * game.count
    some = (_PAIRS * n_players).clamp(max=max(_MAX_PAIRS, 2 * game.players.count))
    return torch.where(every <= _MAX_PAIRS, every, some.double())


def affordable_pairs(game: MeanGame, pairs: Tensor, tolerance: float | None) -> Tensor:
    """Default numbers of pairs ``(N,)``; with too many players none, and a warning."""
    if game.players.count <= BORDER_PLAYERS or tolerance is not None:
        return pairs
    warn(
        f"The rows have {game.players.count} players, so only gradients at a few background rows are measured: pass "
        f"n_samples for better explanations, such as {2 * game.players.count} pairs of a coalition and a background row, or "
        "a feature_mask that groups the players. With n_samples=0 there is no warning."
    )
    return torch.zeros_like(pairs)
