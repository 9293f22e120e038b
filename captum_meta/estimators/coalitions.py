"""Which coalitions a budget is spent on: the border first, then those that tell most, then all sizes by their kernel mass.

The border (one player alone, or all but one) holds the coalitions of highest Shapley-kernel weight. A coalition and its
complement are always taken together: pairing removes the error of all interactions of even order (Covert and Lee 2021).
As far as the hypercube posterior reads them, the next ones are those of :mod:`captum_meta.estimators.design`, with the
players in an order of the row's own. Beyond, sizes are sampled in proportion to their kernel mass, and small sizes without
replacement, as KernelSHAP wants them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from itertools import combinations
from math import comb

import torch
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.estimators.design import telling_coalitions
from captum_meta.estimators.exact import all_coalitions

MAX_TELLING = 1024
"""Pairs, with those of the border, that are chosen: as many as the hypercube posterior reads."""
_LISTED = 5000
"""Sizes with at most this many coalitions are sampled from a list of them, without replacement."""


def plan_coalitions(
    players: Tensor, budget: int, seed: int, keys: Tensor, priority: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Choose the coalitions to evaluate for each row.

    Args:
        players: ``(N, M)`` bool, False for padding.
        budget: coalitions a row; the empty and the full one are not counted. A row never gets more than it has.
        seed: together with ``keys`` it determines what is sampled.
        keys: ``(N,)`` int64, one number a row; rows of equal keys and players get equal coalitions.
        priority: ``(N, M)``, which players come first where the budget does not cover the border; by default random.

    Returns:
        ``members (N, S, M)`` bool and ``measured (N, S)`` bool, the latter False for padding; S <= budget. Coalitions come
        in pairs, each followed by its complement, and up to 2,048 the plan of a smaller budget is the first part of that of
        a larger one. Only of an odd budget below 2M the last one stands alone.

    >>> members, measured = plan_coalitions(torch.ones(1, 3, dtype=torch.bool), 2, 0, torch.tensor([1]))
    >>> members.sum(-1).tolist()
    [[2, 1]]
    """
    return _of_each_row(players, budget, MAX_TELLING, seed, keys, priority)


def sample_coalitions(players: Tensor, budget: int, seed: int, keys: Tensor) -> tuple[Tensor, Tensor]:
    """The border, then pairs drawn by their kernel mass alone, as KernelSHAP's least squares want them.

    Arguments and what is returned are as for :func:`plan_coalitions`.
    """
    return _of_each_row(players, budget, 0, seed, keys, None)


def _of_each_row(
    players: Tensor, budget: int, most_telling: int, seed: int, keys: Tensor, priority: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Plans of rows, whose players may differ in number."""
    if budget < 0:
        raise ValueError(f"The budget of coalitions must not be negative, got {budget}: pass 0 for none.")
    n_rows, width = players.shape
    sizes = players.sum(-1)
    if priority is None:
        priority = uniform(keys, (width,), seed + 1)
    chosen = []
    for size in sizes.unique().tolist():
        rows = (sizes == size).nonzero().squeeze(-1)
        seats = players[rows].to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :size]
        dense = _plan(size, budget, most_telling, seed, keys[rows], priority[rows].gather(1, seats))
        members = torch.zeros(len(rows), dense.shape[1], width, dtype=torch.bool, device=players.device)
        members.scatter_(2, seats.unsqueeze(1).expand(dense.shape), dense)
        chosen.append((rows, members))
    longest = max((members.shape[1] for _, members in chosen), default=0)
    members = torch.zeros(n_rows, longest, width, dtype=torch.bool, device=players.device)
    measured = torch.zeros(n_rows, longest, dtype=torch.bool, device=players.device)
    for rows, part in chosen:
        members[rows, : part.shape[1]] = part
        measured[rows, : part.shape[1]] = True
    return members, measured


def _plan(n_players: int, budget: int, most_telling: int, seed: int, keys: Tensor, priority: Tensor) -> Tensor:
    """``(N, S, M)`` coalitions for rows that all have ``n_players`` players; so many pairs, with the border, are chosen."""
    if n_players < 2:
        return torch.zeros(len(keys), 0, n_players, dtype=torch.bool, device=keys.device)
    everything = n_players < 60 and budget >= 2**n_players - 2
    if budget < 2 * n_players and not everything:
        return _partial_border(budget, priority)
    singles = torch.eye(n_players, dtype=torch.bool, device=keys.device)[: 1 if n_players == 2 else n_players]
    inside = budget // 2 - n_players
    telling = telling_coalitions(n_players, max(0, min(inside, most_telling - n_players))).to(keys.device)
    if everything:
        rest = _others(n_players, telling, seed, keys)
    else:
        rest = _sampled(n_players, inside - len(telling), telling, seed, keys)
    mixed = torch.cat([telling.expand(len(keys), -1, -1), rest], dim=1)
    seats = uniform(keys, (n_players,), seed + 2).argsort(dim=-1).unsqueeze(1)
    mixed = mixed.gather(2, seats.expand(mixed.shape))
    return _with_complements(torch.cat([singles.expand(len(keys), -1, -1), mixed], dim=1))


def _others(n_players: int, known: Tensor, seed: int, keys: Tensor) -> Tensor:
    """All pairs inside the border that are not ``known`` ``(P, M)``, in random order.

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


def _sampled(n_players: int, pairs: int, known: Tensor, seed: int, keys: Tensor) -> Tensor:
    """So many pairs inside the border that are not ``known`` ``(P, M)``, of all sizes in turn, ``(N, pairs, M)``."""
    taken = known.sum(-1).bincount(minlength=n_players)[: n_players // 2 + 1].tolist()
    counts = _allocate(n_players, pairs, taken)
    if not counts:
        return known[:0].expand(len(keys), -1, -1)
    parts = [_sample(n_players, size, count, known, seed + 7919 * size, keys) for size, count in counts.items()]
    turns = torch.cat([(torch.arange(count) + 0.5) / count for count in counts.values()])
    return torch.cat(parts, dim=1)[:, turns.argsort(stable=True).to(keys.device)]


def _partial_border(budget: int, priority: Tensor) -> Tensor:
    """Both border coalitions of the players of highest priority; an odd one out is left out of the full coalition."""
    n_players = priority.shape[-1]
    first = priority.argsort(dim=-1, descending=True, stable=True)[:, : (budget + 1) // 2]
    pairs = _with_complements(~torch.nn.functional.one_hot(first, n_players).bool())
    return pairs[:, :budget]


def _count(n_players: int, size: int) -> int:
    """Pairs of a coalition of ``size`` and its complement."""
    return comb(n_players, size) // (2 if 2 * size == n_players else 1)


@lru_cache(maxsize=64)
def _listed(n_players: int, size: int, device: torch.device) -> Tensor:
    """One coalition of each pair, ``(pairs, M)``."""
    subsets = torch.tensor(list(combinations(range(n_players), size))[: _count(n_players, size)], device=device)
    return torch.zeros(len(subsets), n_players, dtype=torch.bool, device=device).scatter_(1, subsets, True)


def _with_complements(members: Tensor) -> Tensor:
    return torch.stack([members, ~members], dim=2).flatten(1, 2)


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


def _sample(n_players: int, size: int, count: int, known: Tensor, seed: int, keys: Tensor) -> Tensor:
    """``count`` random coalitions of ``size`` for each row, ``(N, count, M)``; none ``known`` where they are few."""
    if _count(n_players, size) <= _LISTED:
        listed = _listed(n_players, size, keys.device)
        alike = listed.double() @ known[known.sum(-1) == size].double().mT
        listed = listed[(alike < size).all(-1)]
        return listed[uniform(keys, (len(listed),), seed).topk(count, dim=-1).indices]
    ranks = uniform(keys, (count, n_players), seed).argsort(dim=-1).argsort(dim=-1)
    return ranks < size
