"""Synthetic tasks for learners that model the explained model: coalitions of the support rows, with gradients."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_meta.estimators import sample_coalitions
from captum_meta.games import BatchedGames
from captum_meta.tasks.batched_games import shapley_explanations
from captum_meta.tasks.synthetic import SyntheticTaskFamily
from captum_meta.types import Coalitions, Explanations

_PLAYERS = range(4, 21)
_EVALUATIONS, _GRADIENT_COST = 16, 3
_VALUES_ALONE = 8
"""Every eighth batch has values alone, as of models without a gradient."""
_STRIDE = 100


@dataclass(frozen=True)
class DistillationTaskFamily(SyntheticTaskFamily):
    """Shapley values of those models of :class:`SyntheticTaskFamily` that have a gradient and 4 to 20 players.

    The first rows of each task, its support set, have the coalitions that a real model has for
    :class:`~captum_meta.learners.Stacking`: values, and mostly gradients, at coalitions worth 16 evaluations per player.
    All rows have their players' elements. Training uses the tasks without augmentation (``augment=False``).

    Args:
        tasks_per_batch, rows, seed: as in :class:`SyntheticTaskFamily`.
        support: rows with coalitions.

    >>> evidence = DistillationTaskFamily(tasks_per_batch=1, rows=3, support=2)[1].evidence
    >>> evidence.coalitions.measured.all(-1).tolist()
    [[True, True, False]]
    """

    support: int = 16

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.kind != "shapley":
            raise ValueError(f"DistillationTaskFamily explains by Shapley values, not by {self.kind!r}: leave out kind.")
        if not 1 <= self.support <= self.rows:
            raise ValueError(f"support={self.support}: pass how many of the {self.rows} rows, at least 1.")

    def games(self, index: int) -> BatchedGames:
        return self.first_games(_STRIDE * index, lambda players, model: model.has_gradient and players in _PLAYERS)

    def variants(self, index: int) -> list[Explanations]:
        """Explanations ``(T, N, M)`` of batch ``index``."""
        games = self.games(index)
        explained = shapley_explanations(games, 0, seed=0).detach()
        coalitions = _coalitions(games, self.support)
        if index % _VALUES_ALONE == _VALUES_ALONE - 1:
            coalitions = replace(coalitions, gradients=None)
        elements = torch.stack([games.inputs, games.baselines], dim=-1)
        return [replace(explained, evidence=replace(explained.evidence, coalitions=coalitions, elements=elements))]


def _coalitions(games: BatchedGames, support: int) -> Coalitions:
    """Values and gradients at coalitions of the first rows, the last two all players and none; nothing of the others."""
    n_tasks, n_rows, n_players = games.shape
    everyone = torch.ones(n_tasks * support, n_players, dtype=torch.bool)
    count = _EVALUATIONS * n_players // _GRADIENT_COST - 2
    inside, _ = sample_coalitions(everyone, min(count, 2**n_players - 2), 0, torch.arange(len(everyone)))
    ends = torch.tensor([True, False]).reshape(1, 2, 1).expand(len(everyone), -1, n_players)
    members = torch.cat([inside, ends], dim=1).unflatten(0, (n_tasks, support))
    inputs, baselines = (side[:, :support].unsqueeze(2) for side in (games.inputs, games.baselines))
    points = torch.where(members.unsqueeze(-1), inputs, baselines).flatten(1, 2).requires_grad_(True)
    with torch.enable_grad():
        values = games.function(points, torch.arange(support).repeat_interleave(members.shape[2]))
    gradients = torch.autograd.grad(values.sum(), points)[0].unflatten(1, (support, -1))
    values = values.detach().unflatten(1, (support, -1))
    measured = torch.ones_like(values, dtype=torch.bool)

    def padded(value: Tensor) -> Tensor:
        return torch.cat([value, value.new_zeros(n_tasks, n_rows - support, *value.shape[2:])], dim=1)

    return Coalitions(*(padded(value) for value in (members, values - values[..., -1:], measured, gradients)))
