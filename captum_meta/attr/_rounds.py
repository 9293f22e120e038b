"""Coalitions that follow the first ones, chosen for each row by what these told, in rounds."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta.attr._arithmetic import plain_arithmetic, working_dtype
from captum_meta.attr._learner import LearnerInUse
from captum_meta.evidence import Game, ShapleyMeasurement, ShapleyPlan
from captum_meta.evidence.shapley import FIRST_ROUND
from captum_meta.types import Evidence

_SPARE = 256
"""Coalitions planned beyond a budget, to choose from."""
_MOST_PLAYERS, _MOST_CHOSEN = 16, 512
"""Players of a row, and coalitions, up to which these are chosen: the time of a choice is cubic in them."""
_MOST_NUMBERS = 2**25


def measure_in_rounds(plan: ShapleyPlan, game: Game, learner: LearnerInUse) -> tuple[Evidence, Tensor]:
    """Evidence of every row with as many coalitions as planned, and f of the baselines ``(N, K)``.

    After eight for each player, rows of up to 16 players are asked for those that tell most of their Shapley values by what
    the ``learner`` expects, up to 512 in all. Each round has as many as all before, and rates are fitted anew after it.
    Rows that are evaluated together have the same ones, and choose none. The coalitions of a smaller budget are not always
    among those of a larger one.
    """
    measurement = plan.begin(game, _SPARE)
    limits, sizes = measurement.limits, measurement.mask.sum(1)
    choosing = (sizes <= _MOST_PLAYERS) & (not game.together)
    counts = torch.where(choosing, torch.minimum(FIRST_ROUND * sizes, limits), limits)
    measurement.evaluate(counts)
    while bool((counts < limits).any()):
        after = torch.minimum(2 * counts, limits.clamp(max=_MOST_CHOSEN))
        after = torch.where(counts < _MOST_CHOSEN, after, limits)
        _choose(measurement, counts, after, learner)
        measurement.evaluate(counts := after)
    return plan.read_beside(measurement.evidence(), game), measurement.start


def _choose(measurement: ShapleyMeasurement, counts: Tensor, after: Tensor, learner: LearnerInUse) -> None:
    """What follows the ``counts (N,)`` coalitions that were evaluated, up to ``after (N,)`` ones, where there are others."""
    chosen = (counts < after) & (counts < _MOST_CHOSEN) & (measurement.planned.sum(1) > after)
    for n_seen, n_after in torch.stack([counts, after], dim=1)[chosen].unique(dim=0).tolist():
        rows = (chosen & (counts == n_seen) & (after == n_after)).nonzero().squeeze(1)
        for part in rows.split(max(1, _MOST_NUMBERS // (n_after + _SPARE) ** 2)):
            _choose_for(measurement, part, n_seen // 2, (n_after - n_seen) // 2, learner)


def _choose_for(measurement: ShapleyMeasurement, rows: Tensor, n_seen: int, count: int, learner: LearnerInUse) -> None:
    candidates = slice(2 * n_seen, 2 * (n_seen + count) + _SPARE, 2)
    n_outputs = measurement.total.shape[1]
    members, free = measurement.members[rows, candidates], measurement.planned[rows, candidates]
    members, free = members.repeat_interleave(n_outputs, 0), free.repeat_interleave(n_outputs, 0)
    evidence = measurement.evidence(rows)
    with plain_arithmetic(evidence.total.device):
        evidence, reader = evidence.to(dtype=working_dtype(evidence.total)), learner.for_numbers(evidence.total)
        chosen = reader.telling_pairs(evidence, members, free, count, n_outputs)[::n_outputs]
    measurement.prefer(rows, n_seen + chosen, n_seen)
