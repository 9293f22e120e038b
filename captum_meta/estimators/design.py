r"""Coalitions ordered by their information about the Shapley values, independent of the model: a design of experiments.

Under the hypercube posterior's prior (:mod:`captum_meta.estimators.hypercube`) a pair of coalitions c, when the pairs chosen
so far are known, reduces the summed variance of the Shapley values by

.. math:: |C_c|^2 / K_{cc}

with K its variance given the chosen pairs, and C its covariance with the Shapley values. No worth enters, so the choice can
be made before any is known. Here it is made once for each number of players, greedily, with all players alike (a design that
is A-optimal but for the greed: Fedorov 1972; Krause, Singh and Guestrin 2008). Each row permutes its players by its key.
A choice by each row's own rates lowers errors by a tenth to a third more, at several times the posterior's cost.

Steps are few products of matrices: the candidates are dealt into parts, each of which is conditioned on the last choices at
once and then chosen from, in turn (stochastic greedy: Mirzasoleiman et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Generator, Tensor

from captum_meta.estimators.alike import alike_kernel
from captum_meta.estimators.exact import all_coalitions
from captum_meta.estimators.hypercube import HypercubeKernel
from captum_meta.estimators.kernel_sampling import sampled_pairs

_CANDIDATES, _PARTS, _FEWEST = 2048, 8, 256
_SHORTEST = 64
_MOST_PLAYERS = 128
"""With more players, random coalitions are as informative as chosen ones."""
_JITTER = 1e-10
_LEAST_VARIANCE = 1e-9
_TIES = 1e-4
"""Alike players make many candidates equal: a random factor so close to 1 decides, on every machine alike."""


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


@dataclass
class _Chosen:
    """The border and the pairs chosen, ``count`` of them: their signs, Cholesky factor and share in the Shapley values."""

    signs: Float[Tensor, "P M"]  # (P, M)
    factor: Float[Tensor, "P P"]  # (P, P)
    values: Float[Tensor, "P M"]  # (P, M), L^-1 C
    count: int

    def add(self, signs: Tensor, row: Tensor, deviation: Tensor, values: Tensor) -> None:
        self.signs[self.count] = signs
        self.factor[self.count, : self.count] = row
        self.factor[self.count, self.count] = deviation
        self.values[self.count] = values / deviation
        self.count += 1


@dataclass
class _Candidates:
    """A part of the candidates, given the first ``count`` of the chosen pairs."""

    members: Bool[Tensor, "R M"]  # (R, M)
    signs: Float[Tensor, "R M"]  # (R, M)
    factor: Float[Tensor, "P R"]  # (P, R), L^-1 k
    values: Float[Tensor, "M R"]  # (M, R), what is left of the covariance with the Shapley values
    variance: Float[Tensor, " R"]  # (R,), what is left
    favour: Float[Tensor, " R"]  # (R,)
    free: Bool[Tensor, " R"]  # (R,) bool, not yet chosen
    count: int = 0

    def condition(self, chosen: _Chosen, by_distance: Float[Tensor, " sizes"]) -> None:
        """Given all that are chosen. ``by_distance (M + 1,)`` is the covariance of pairs that differ in so many players."""
        old, new = slice(self.count), slice(self.count, chosen.count)
        distances = ((len(by_distance) - 1 - chosen.signs[new] @ self.signs.mT) / 2).round().long()
        right = by_distance[distances] - chosen.factor[new, old] @ self.factor[old]
        rows = torch.linalg.solve_triangular(chosen.factor[new, new], right, upper=False)
        self.factor[new] = rows
        self.values -= chosen.values[new].mT @ rows
        self.variance = (self.variance - rows.square().sum(0)).clamp(min=0)
        self.count = chosen.count

    def take(self, least: Tensor) -> int:
        """Index of the most informative free candidate, among those whose variance exceeds ``least`` if there are any."""
        gain = self.values.square().sum(0) / self.variance.clamp(min=least) * self.favour
        gain = torch.where(self.variance > least, gain, self.variance - 1)
        best = int(torch.where(self.free, gain, -torch.inf).argmax())
        self.free[best] = False
        return best


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _greedy(n_players: int, count: int, border: bool) -> Bool[Tensor, "count M"]:
    if n_players < 4:
        return torch.zeros(0, n_players, dtype=torch.bool)
    pool = _pool(n_players)
    pool = pool if border else torch.cat([torch.eye(n_players, dtype=torch.bool), pool])
    count = min(count, len(pool))
    ones = torch.ones(n_players, dtype=torch.float64)
    alike = alike_kernel(ones.unsqueeze(0))
    by_distance = alike.with_pairs(1 - 2 * torch.ones(n_players + 1, n_players).double().tril(-1)).squeeze(-1)
    least = _LEAST_VARIANCE * by_distance[0]
    chosen = _start(alike, count, border)
    generator = Generator().manual_seed(1)
    n_parts = min(_PARTS, max(1, len(pool) // _FEWEST))
    parts = [_part(some, alike, by_distance[0], len(chosen.signs), generator) for some in pool.tensor_split(n_parts)]
    found = []
    for turn in range(count):
        part = parts[turn % n_parts]
        part.condition(chosen, by_distance)
        best = part.take(least)
        deviation = part.variance[best].clamp(min=least).sqrt()
        chosen.add(part.signs[best], part.factor[: chosen.count, best], deviation, part.values[:, best])
        found.append(part.members[best])
    return torch.stack(found)


def _start(alike: HypercubeKernel, count: int, border: bool) -> _Chosen:
    """Everyone, and with ``border`` each player alone, with room for ``count`` more."""
    singles = 2 * torch.eye(alike.signs.shape[-1], dtype=torch.float64) - 1
    signs = torch.cat([alike.signs, singles]) if border else alike.signs
    first = replace(alike, signs=signs)
    among = first.with_pairs(signs)
    among.diagonal().mul_(1 + _JITTER)
    factor = torch.linalg.cholesky(among)
    values = torch.linalg.solve_triangular(factor, first.with_shapley_values(), upper=False)
    pad = torch.nn.functional.pad
    return _Chosen(
        pad(signs, (0, 0, 0, count)), pad(factor, (0, count, 0, count)), pad(values, (0, 0, 0, count)), len(signs)
    )


def _part(members: Tensor, alike: HypercubeKernel, variance: Tensor, room: int, generator: Generator) -> _Candidates:
    signs = members.double() * 2 - 1
    return _Candidates(
        members,
        signs,
        factor=torch.zeros(room, len(members), dtype=torch.float64),
        values=replace(alike, signs=signs).with_shapley_values().mT.contiguous(),
        variance=variance.expand(len(members)),
        favour=1 + _TIES * torch.rand(len(members), generator=generator, dtype=torch.float64),
        free=torch.ones(len(members), dtype=torch.bool),
    )


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
