"""Synthetic tasks that error estimates learn from: five kinds of small models, each at four budgets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal, get_args

import torch
from torch import Generator

from captum_meta.games import BatchedGames
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.tasks.batched_games import shapley_explanations
from captum_meta.tasks.random_data import pick
from captum_meta.training.rough_games import ROUGH, rough_games
from captum_meta.types import LEAVE_ONE_OUT, Evidence, Explanations

Models = Literal["smooth", "smooth without gradients", "conjunctions", "trees", "steps"]
MULTIPLES = (2, 4, 8, 16)
"""Coalitions over players."""
_PLAYERS = (4, 5, 6, 7, 8, 9, 10, 11, 12)
_WITHOUT_GRADIENTS = "smooth without gradients"
_STRIDE = 100


@dataclass(frozen=True)
class EstimatedTaskFamily:
    """Models of one kind with up to 12 players, so that Shapley values are exact, at 2M to 16M coalitions.

    Smooth models are those of :class:`~captum_meta.tasks.SyntheticTaskFamily`, also as if their gradients were unknown; the
    others have none (:mod:`captum_meta.training.rough_games`). In training they are used as they were made
    (``augment=False``).

    Args:
        models: of which kind.
        tasks_per_batch, rows, seed: as in :class:`~captum_meta.tasks.SyntheticTaskFamily`.

    >>> [len(view) for view in EstimatedTaskFamily("trees", tasks_per_batch=1, rows=2, seed=1).variants(0)]
    [2, 2, 2, 2]
    """

    models: Models
    tasks_per_batch: int = 8
    rows: int = 16
    seed: int = 0

    def variants(self, index: int) -> list[Explanations]:
        """Explanations ``(T, N, M)``, float64, of batch ``index`` at growing budgets, up to all but all coalitions."""
        games = self._games(index)
        explained = shapley_explanations(games, MULTIPLES[-1] * games.shape[2], self.seed).detach().to(dtype=torch.float64)
        evidence = explained.evidence
        if self.models == _WITHOUT_GRADIENTS:
            evidence = _without_gradients(evidence)
        return [replace(explained, evidence=some) for some in _at_budgets(evidence)]

    def _games(self, index: int) -> BatchedGames:
        generator = Generator().manual_seed(self.seed * 1_000_003 + index)
        if self.models in ROUGH:
            return rough_games(self.models, self.tasks_per_batch, pick(generator, *_PLAYERS), self.rows, generator)
        family = SyntheticTaskFamily("shapley", self.tasks_per_batch, self.rows, self.seed)
        return family.first_games(_STRIDE * index, lambda players, _: players in _PLAYERS)


@dataclass(frozen=True)
class EstimatedTaskFamilies:
    """All kinds of :class:`EstimatedTaskFamily` in turn.

    Args:
        tasks_per_batch, rows, seed: of each.
    """

    tasks_per_batch: int = 8
    rows: int = 16
    seed: int = 0

    def variants(self, index: int) -> list[Explanations]:
        """Explanations ``(T, N, M)`` of batch ``index`` at growing budgets."""
        kinds = get_args(Models)
        family = EstimatedTaskFamily(kinds[index % len(kinds)], self.tasks_per_batch, self.rows, self.seed)
        return family.variants(index // len(kinds))


def _without_gradients(evidence: Evidence) -> Evidence:
    kept = torch.arange(evidence.effects.shape[-1]) >= LEAVE_ONE_OUT
    return replace(
        evidence,
        effects=torch.where(kept, evidence.effects, 0.0),
        measured=evidence.measured & kept,
        curve=torch.where(torch.arange(3) == 0, evidence.curve, 0.0),
    )


def _at_budgets(evidence: Evidence) -> Iterator[Evidence]:
    for multiple in MULTIPLES:
        some = within(evidence, multiple)
        if some is not None:
            yield some


def within(evidence: Evidence, multiple: int) -> Evidence | None:
    """The evidence with its first ``multiple * M`` coalitions; None where it has fewer, or these are all there are."""
    n_players, coalitions = evidence.players.shape[-1], evidence.coalitions
    if multiple * n_players >= 2**n_players - 2:
        return None
    if multiple == 2:
        return evidence.without_coalitions()
    if coalitions is None or coalitions.members.shape[-2] < multiple * n_players:
        return None
    return replace(evidence, coalitions=coalitions.first(multiple * n_players))


def multiple_of(evidence: Evidence) -> int:
    """Coalitions over players."""
    return 2 if evidence.coalitions is None else evidence.coalitions.members.shape[-2] // evidence.players.shape[-1]
