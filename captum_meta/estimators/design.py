r"""Coalitions ordered by their information about the Shapley values, independent of the model: a design of experiments.

Under the hypercube posterior's prior (:mod:`captum_meta.estimators.hypercube`) the next pair of coalitions is the one that
tells most about the Shapley values (:mod:`captum_meta.estimators.telling`). No worth enters, so the choice can be made
before any is known. Here it is made once for each number of players, with all players alike. Each row permutes its players
by its key. Later coalitions are chosen by a row's own rates (:mod:`captum_meta.estimators.difference_design`).
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Bool
from torch import Generator, Tensor

from captum_meta.estimators.alike import alike_kernel
from captum_meta.estimators.exact import all_coalitions
from captum_meta.estimators.hypercube import HypercubeKernel
from captum_meta.estimators.kernel_sampling import sampled_pairs
from captum_meta.estimators.telling import Beliefs, favours, most_telling

_CANDIDATES, _PARTS, _FEWEST = 2048, 8, 256
_SHORTEST = 64
_MOST_PLAYERS = 128
"""With more players, random coalitions are as informative as chosen ones."""


def telling_coalitions(n_players: int, count: int, border: bool = True) -> Bool[Tensor, "count M"]:
    """The first ``count`` coalitions that follow the border, ``(count, n_players)`` bool; one of each pair.

    The border are the coalitions of one player and of all but one.

    Without ``border`` they come first, and may include coalitions of the border.

    The smaller one of the pair is given, and of two of equal size that with the first player. A shorter list is the
    beginning of a longer one. There are fewer where no more exist. Beyond 128 players they are coin flips.

    >>> telling_coalitions(5, 3).sum(-1).tolist()
    [2, 2, 2]
    """
    if count == 0:
        return torch.zeros(0, n_players, dtype=torch.bool)
    if n_players > _MOST_PLAYERS:
        return _coin_flips(n_players, count)
    longer = max(_SHORTEST, 1 << max(count - 1, 0).bit_length())  # one list serves many numbers
    return _greedy(n_players, longer, border)[:count]


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _greedy(n_players: int, count: int, border: bool) -> Bool[Tensor, "count M"]:
    if n_players < 4:
        return torch.zeros(0, n_players, dtype=torch.bool)
    pool, singles = _pool(n_players), torch.eye(n_players, dtype=torch.bool)
    pool = pool if border else torch.cat([singles, pool])
    known = torch.cat([torch.ones_like(singles[:1]), singles if border else singles[:0]])
    n_parts = min(_PARTS, max(1, len(pool) // _FEWEST))
    generator = Generator().manual_seed(1)
    favour = torch.cat([favours(len(part), generator) for part in pool.tensor_split(n_parts)])
    free = torch.ones(1, len(pool), dtype=torch.bool)
    found = most_telling(_beliefs(known, pool), free, favour, min(count, len(pool)), n_parts)
    return pool[found[0]]


def _beliefs(known: Bool[Tensor, "S M"], pool: Bool[Tensor, "P M"]) -> Beliefs:
    """About the pool, where all players are alike and pairs differ in as many players as there are covariances."""
    seen, candidates = (alike_kernel(members.double() * 2 - 1) for members in (known, pool))
    n_players = pool.shape[1]
    by_distance = seen.with_pairs(1 - 2 * torch.ones(n_players + 1, n_players).double().tril(-1))[:, 0]

    def among(first: HypercubeKernel, second: HypercubeKernel) -> Tensor:
        return by_distance[((n_players - first.signs @ second.signs.mT) / 2).round().long()].unsqueeze(0)

    before = Beliefs(among(candidates, candidates), candidates.with_shapley_values().unsqueeze(0))
    return before.given(among(seen, seen), among(seen, candidates), seen.with_shapley_values().unsqueeze(0))


def _pool(n_players: int) -> Bool[Tensor, "R M"]:
    """Candidates in random order, ``(R, M)``: all pairs where they are few, else a sample by kernel mass."""
    if 2 ** (n_players - 1) <= _CANDIDATES:
        pool = different_pairs(all_coalitions(n_players)[1:-1])
        pool = pool[pool.sum(-1) > 1]
    else:
        nothing = torch.zeros(0, n_players, dtype=torch.bool)
        pool = different_pairs(sampled_pairs(n_players, _CANDIDATES, nothing, 0, torch.zeros(1, dtype=torch.long))[0])
    return pool[torch.randperm(len(pool), generator=Generator().manual_seed(0))]


def _coin_flips(n_players: int, count: int) -> Bool[Tensor, "count M"]:
    """Each player in or out with equal odds; so many players make no coalition of the border, and none twice."""
    return different_pairs(torch.rand(count, n_players, generator=Generator().manual_seed(2)) < 0.5)


def different_pairs(members: Bool[Tensor, "P M"]) -> Bool[Tensor, "R M"]:
    """The smaller coalition of each pair of ``(P, M)``, at its first place; of equal sizes that with player 0."""
    twice = 2 * members.sum(-1, keepdim=True)
    flipped = (twice > members.shape[-1]) | ((twice == members.shape[-1]) & ~members[:, :1])
    smaller = members ^ flipped
    first: dict[bytes, int] = {}
    for index, row in enumerate(smaller.numpy()):
        first.setdefault(row.tobytes(), index)
    return smaller[list(first.values())]
