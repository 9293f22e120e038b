"""Shapley values of a surrogate network, which cost no evaluation of the explained model."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from captum_meta.estimators import kernel_matrix, sample_coalitions
from captum_meta.games import SurrogateGame
from captum_meta.games.references import exact_shapley_values

_COALITIONS, _EXACT_PLAYERS, _STRENGTH = 2**14, 14, 1e-6


def values_of_surrogate(game: SurrogateGame) -> Tensor:
    """Shapley values ``(N, M)``, exact up to 14 players, else by KernelSHAP on 16,384 coalitions."""
    n_players = game.like.shape[-1]
    if n_players <= _EXACT_PLAYERS:
        return exact_shapley_values(
            lambda members: game.worths(members.expand(len(game.like), -1, -1)), n_players, game.like.device
        )
    members, solution = (tensor.to(game.like.device) for tensor in _plan(n_players))
    worths = game.worths(members.expand(len(game.like), -1, -1))
    everyone = torch.ones_like(game.like[:, None], dtype=torch.bool)
    share = game.worths(everyone) / n_players
    beyond = worths - share * members.sum(-1)
    return share + (beyond.to(solution) @ solution.mT).to(share)


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _plan(n_players: int) -> tuple[Tensor, Tensor]:
    """Coalitions ``(S, M)`` of any row, and KernelSHAP on them ``(M, S)``."""
    everyone, key = torch.ones(1, n_players, dtype=torch.bool), torch.zeros(1, dtype=torch.long)
    members, _ = sample_coalitions(everyone, max(_COALITIONS, 8 * n_players), 0, key)
    return members[0], kernel_matrix(members[0], _STRENGTH)
