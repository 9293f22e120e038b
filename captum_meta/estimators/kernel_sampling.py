"""Pairs of coalitions sampled by their Shapley-kernel weight."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import comb

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.estimators.exact import all_coalitions

_LISTED = 5000
"""Sizes with at most this many coalitions are sampled from a list of them, without replacement."""


def other_pairs(n_players: int, known: Bool[Tensor, "P M"], seed: int, keys: Int64[Tensor, " N"]) -> Bool[Tensor, "N A M"]:
    """All pairs of 2 to M - 2 players that are not ``known`` ``(P, M)``, in random order.

    The next one is drawn from those left in proportion to its kernel weight. To this end each draws an exponential time at
    the rate of its weight, and the earliest comes first (Efraimidis and Spirakis 2006).
    """
    half = all_coalitions(n_players, keys.device)[1 : 2 ** (n_players - 1)]
    sizes = half.sum(-1).minimum(n_players - half.sum(-1))
    codes = 2 ** torch.arange(n_players, device=keys.device)
    seen = torch.where(known[:, -1:], ~known, known).long() @ codes
    left = (sizes > 1).index_fill(0, seen - 1, False)
    half, sizes = half[left], sizes[left]
    weights = torch.tensor([1 / (s * (n_players - s) * comb(n_players, s)) for s in range(1, n_players)]).to(keys.device)
    times = -torch.log1p(-uniform(keys, (len(half),), seed)) / weights[sizes - 1]
    return half[times.argsort(dim=-1)]


def sampled_pairs(
    n_players: int, pairs: int, known: Bool[Tensor, "P M"], seed: int, keys: Int64[Tensor, " N"]
) -> Bool[Tensor, "N A M"]:
    """So many pairs of 2 to M - 2 players that are not ``known`` ``(P, M)``, of all sizes in turn, ``(N, pairs, M)``."""
    taken = known.sum(-1).bincount(minlength=n_players)[: n_players // 2 + 1].tolist()
    counts = _allocate(n_players, pairs, taken)
    if not counts:
        return known[:0].expand(len(keys), -1, -1)
    parts = [_sample(n_players, size, count, known, seed + 7919 * size, keys) for size, count in counts.items()]
    turns = torch.cat([(torch.arange(count) + 0.5) / count for count in counts.values()])
    return torch.cat(parts, dim=1)[:, turns.argsort(stable=True).to(keys.device)]


def _count(n_players: int, size: int) -> int:
    """Pairs of a coalition of ``size`` and its complement."""
    return comb(n_players, size) // (2 if 2 * size == n_players else 1)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _listed(n_players: int, size: int, device: torch.device) -> Bool[Tensor, "P M"]:
    """One coalition of each pair, ``(pairs, M)``."""
    subsets = torch.tensor(list(combinations(range(n_players), size))[: _count(n_players, size)], device=device)
    return torch.zeros(len(subsets), n_players, dtype=torch.bool, device=device).scatter_(1, subsets, True)


def _allocate(n_players: int, pairs: int, taken: Sequence[int]) -> dict[int, int]:
    """Share ``pairs`` among the sizes from 2 to M / 2 by their kernel mass, none above what it has beside those ``taken``.

    Sizes whose share covers them are so enumerated. Enumerating any size that merely fits would leave larger ones bare.
    """
    shares = {}
    sizes = list(range(2, n_players // 2 + 1))
    available = {size: _count(n_players, size) - taken[size] for size in sizes}
    masses = {size: (0.5 if 2 * size == n_players else 1.0) / (size * (n_players - size)) for size in sizes}
    left = sum(masses.values())
    for size in sizes:
        shares[size] = min(round(pairs * masses[size] / left), available[size])
        pairs -= shares[size]
        left -= masses[size]
    for size in sizes:
        extra = min(pairs, available[size] - shares[size])
        shares[size] += extra
        pairs -= extra
    return {size: count for size, count in shares.items() if count > 0}


def _sample(
    n_players: int, size: int, count: int, known: Bool[Tensor, "P M"], seed: int, keys: Int64[Tensor, " N"]
) -> Bool[Tensor, "N A M"]:
    """``count`` random coalitions of ``size`` for each row, ``(N, count, M)``; none ``known`` where they are few."""
    if _count(n_players, size) <= _LISTED:
        listed = _listed(n_players, size, keys.device)
        alike = listed.double() @ known[known.sum(-1) == size].double().mT
        listed = listed[(alike < size).all(-1)]
        return listed[uniform(keys, (len(listed),), seed).topk(count, dim=-1).indices]
    ranks = uniform(keys, (count, n_players), seed).argsort(dim=-1).argsort(dim=-1)
    return ranks < size
