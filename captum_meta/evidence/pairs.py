"""Evaluations of a mean game, f at pairs of a coalition and a background row, and the plan of the next ones."""

from __future__ import annotations

from math import ceil, gcd

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor
from torch.nn import functional

from captum_meta._random import uniform
from captum_meta.estimators import plan_coalitions
from captum_meta.evidence.border import rounding
from captum_meta.evidence.dummies import acting
from captum_meta.evidence.rows import row_keys
from captum_meta.games import MeanGame

_TESTS, _TESTED = 16, 4
"""Pairs that look for effects of players who show none alone and as the only one left out, and how many times as many a
row must have."""


class PairMeasurement:
    """f of the inputs and of all background rows, measured at once, and of pairs, evaluated when they are asked for.

    Coalitions are those of :func:`~captum_meta.estimators.plan_coalitions`, again and again, each time with another row.
    A coalition and its complement have the same one, all rows are used equally often, and no pair twice.

    Args:
        game: the explained model, the rows, and the background rows.
        budgets: pairs of each row, ``(N,)``.
        seed: of the coalitions, and of the order of the background rows.

    Attributes:
        everyone: ``(N, O)``, f of the inputs.
        nobody: ``(N, K, O)``, f of the background rows.
        members, drawn: ``(N, S, M)`` bool and ``(N, S)``, the pairs planned.
        planned, asked: ``(N, S)`` bool, which are meant (others are padding), and which have been evaluated.
        values: ``(N, S, O)``, f of the latter.
        tested: ``(N, M)`` bool, players without effect alone and as the only one left out, of whom further pairs were asked.
    """

    def __init__(self, game: MeanGame, budgets: Num[Tensor, " N"], seed: int = 0) -> None:
        self.game = game
        self.everyone, self.nobody = game.ends()
        if game.game.together:
            budgets = budgets.amax().expand_as(budgets)
        self.members, self.drawn, self.planned = plan_pairs(game.mask, budgets, game.count, seed, row_keys(game.game))
        self.asked = torch.zeros_like(self.planned)
        self.tested = torch.zeros_like(game.mask)
        values = game.player_values()
        self._changed = (values[:, :1] != values[:, 1:]).any(3).any(1) & game.mask
        self.values = self.everyone.new_zeros(*self.planned.shape, self.everyone.shape[-1])

    @property
    def total(self) -> Float[Tensor, "N O"]:
        """f(input) less the mean of f(background), ``(N, O)`` float64."""
        return self.everyone.double() - self.start

    @property
    def start(self) -> Float[Tensor, "N O"]:
        """The mean of f(background), ``(N, O)`` float64."""
        return self.game.weights @ self.nobody.double()

    @property
    def complete(self) -> Bool[Tensor, " N"]:
        """Rows of which all pairs are known, ``(N,)`` bool."""
        every = 2.0 ** self.game.mask.sum(1) - 2
        return self.asked.sum(1) == every * self.game.count

    def evaluate(self, counts: Num[Tensor, " N"] | None = None, rows: Bool[Tensor, " N"] | None = None) -> None:
        """Evaluate the first ``counts (N,)`` pairs, by default all, of the ``rows (N,)`` bool."""
        limits = self.planned.sum(1)
        counts = limits if counts is None else torch.minimum(counts, limits)
        if rows is not None:
            counts = torch.where(rows, counts, 0)
        last = (counts == limits) & (limits > _TESTED * _TESTS)
        self._evaluate(torch.where(last, counts - _TESTS, counts))
        if bool(last.any()):
            self._plan_tests(last)
            self._evaluate(counts)

    def _evaluate(self, counts: Tensor) -> None:
        wanted = self.planned & ~self.asked
        wanted &= torch.arange(wanted.shape[1], device=wanted.device) < counts.unsqueeze(1)
        if bool(wanted.any()):
            values = self.game.values(self.members, self.drawn, wanted)
            self.values = torch.where(wanted.unsqueeze(-1), values, self.values)
            self.asked |= wanted

    def _plan_tests(self, rows: Tensor) -> None:
        """The last pairs become earlier ones in which all players change sides without any effect alone or left out."""
        every = (2.0 ** self.game.mask.sum(1) - 2) * self.game.count
        still = self._still()[0].all(2)
        rows = rows & still.any(1) & (self.planned.sum(1) < every) & (not self.game.game.together)
        for row in rows.nonzero().flatten().tolist():
            count = int(self.planned[row].sum())
            last = torch.arange(count - _TESTS, count, device=rows.device)
            source = torch.linspace(0, count - _TESTS - 1, _TESTS, device=rows.device).long()
            self.members[row, last], self.drawn[row, last] = self.members[row, source] ^ still[row], self.drawn[row, source]
            self.tested[row] = still[row]

    def idle(self) -> Bool[Tensor, "N M O"]:
        """Players without effect, ``(N, M, O)`` bool.

        Their inputs are those of all background rows; or no effect is seen, of them alone, left out, or in pairs.
        """
        still, noise = self._still()
        still &= self.tested.unsqueeze(-1)
        if bool(still.any()):
            still &= ~self._contradicted(still, self._known, noise)
        return still | ~self._changed.unsqueeze(-1)

    def rounding(self) -> Float[Tensor, "N O"]:
        """Changes of f that may be rounding alone, ``(N, O)``."""
        return self._still()[1]

    @property
    def _known(self) -> Bool[Tensor, "N S O"]:
        return self.asked.unsqueeze(-1) & self.values.isfinite()

    def _still(self) -> tuple[Bool[Tensor, "N M O"], Float[Tensor, "N O"]]:
        """Players without any effect alone or left out, ``(N, M, O)`` bool, and what is rounding, ``(N, O)``."""
        known = self._known
        behind = self.nobody.gather(1, self.drawn.unsqueeze(-1).expand(-1, -1, known.shape[-1]))
        added, left_out = self.values - behind, self.values - self.everyone.unsqueeze(1)
        sizes = torch.where(known, torch.maximum(added.abs(), left_out.abs()), 0.0)
        noise = rounding(torch.stack([self.everyone, self.nobody[:, 0]], dim=1).nan_to_num(0.0), sizes)
        seen = torch.zeros(*self._changed.shape, known.shape[-1], dtype=torch.bool, device=known.device)
        acts = torch.zeros_like(seen)
        for single, change in ((self.members, added), (self.game.mask.unsqueeze(1) & ~self.members, left_out)):
            found = (single.sum(-1) == 1).unsqueeze(-1) & known
            for players, chosen in ((seen, found), (acts, found & (change.abs() > noise.unsqueeze(1)))):
                rows, pairs, outputs = chosen.nonzero(as_tuple=True)
                players[rows, single[rows, pairs].to(torch.uint8).argmax(-1), outputs] = True
        return seen & ~acts & self._changed.unsqueeze(-1), noise

    def _contradicted(self, still: Tensor, known: Tensor, noise: Tensor) -> Tensor:
        """Players without an effect of their own who act in larger coalitions; background rows take part as players."""
        n_rows, count = len(self.drawn), self.game.count
        behind = functional.one_hot(self.drawn, count).bool()
        members = torch.cat([self.members, behind], dim=2)
        nobody = torch.eye(count, dtype=torch.bool, device=still.device).expand(n_rows, -1, -1)
        members = torch.cat([members, functional.pad(nobody, (self.members.shape[2], 0))], dim=1)
        worths = torch.cat([self.values, self.nobody], dim=1).nan_to_num(0.0)
        known = torch.cat([known, self.nobody.isfinite()], dim=1)
        return acting(functional.pad(still, (0, 0, 0, count)), members, worths, known, noise)[:, : still.shape[1]]


def plan_pairs(
    players: Bool[Tensor, "N M"], budgets: Num[Tensor, " N"], count: int, seed: int, keys: Int64[Tensor, " N"]
) -> tuple[Bool[Tensor, "N S M"], Int64[Tensor, "N S"], Bool[Tensor, "N S"]]:
    """Choose pairs of a coalition and one of ``count`` background rows.

    Args:
        players: ``(N, M)`` bool, False for padding.
        budgets: ``(N,)``, pairs of each row; a row never gets more than it has.
        seed, keys: as for :func:`~captum_meta.estimators.plan_coalitions`.

    Returns:
        ``members (N, S, M)`` bool, ``drawn (N, S)`` int64 and ``planned (N, S)`` bool, False for padding.
    """
    sizes = players.sum(1)
    parts = []
    for size, budget in torch.stack([sizes, budgets.to(sizes)], dim=1).unique(dim=0).tolist():
        rows = ((sizes == size) & (budgets == budget)).nonzero().flatten()
        members, _ = plan_coalitions(players[rows], budget, seed, keys[rows])
        length = members.shape[1]
        turns = torch.arange(min(budget, length * count), device=players.device)
        order = uniform(keys[rows], (count,), seed + 3).argsort(1)
        parts.append((rows, members[:, turns % max(1, length)], order[:, _indices(turns, length, count)]))
    longest = max((members.shape[1] for _, members, _ in parts), default=0)
    members = torch.zeros(len(players), longest, players.shape[1], dtype=torch.bool, device=players.device)
    drawn = torch.zeros(len(players), longest, dtype=torch.long, device=players.device)
    planned = torch.zeros(len(players), longest, dtype=torch.bool, device=players.device)
    for rows, some, behind in parts:
        length = some.shape[1]
        members[rows, :length], drawn[rows, :length], planned[rows, :length] = some, behind, True
    return members, drawn, planned


def _indices(turns: Tensor, length: int, count: int) -> Tensor:
    """Indices of the background rows, of ``count``, for ``length`` coalitions, in turn.

    Row after row; where a round would start as an earlier one did, it starts one further.
    """
    halves = max(1, ceil(length / 2))
    rounds, indices = turns // max(1, length), turns % max(1, length) // 2
    return (rounds * halves + indices + rounds // (count // gcd(halves, count))) % count
