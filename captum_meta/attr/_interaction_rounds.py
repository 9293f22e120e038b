"""Coalitions of each row that tell most about its own interactions, chosen in rounds."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captum_meta.attr._arithmetic import plain_arithmetic
from captum_meta.estimators import InteractionProcess, telling_sums
from captum_meta.evidence import Game, ShapleyMeasurement, ShapleyPlan
from captum_meta.nn.refinement import border_coalitions
from captum_meta.types import LEAVE_ONE_OUT, Evidence

MOST_PLAYERS = 16
SEVERAL_OUTPUTS = "The model has several outputs per row: pass target= to select one."
_POOL = 256
"""Pairs of a coalition and its complement beside the border that are chosen from."""
_MOST_NUMBERS = 2**22


def measure_for_interactions(plan: ShapleyPlan, game: Game) -> tuple[Evidence, Tensor]:
    """Evidence of every row with as many coalitions as planned, and f of the baselines ``(N, K)``.

    The border comes first, then pairs of a coalition and its complement, in rounds as large as all before: those that tell
    most about the row's interactions, by the rates that are most likely given what it has seen
    (:mod:`captum_meta.estimators.pair_design`). Where players are many, coalitions few or nearly all, or rows evaluated
    together, they are those of Shapley values.
    """
    count, n_players = plan.coalitions, game.players.count
    assert count is not None and not plan.per_player
    pool = min(2 * (n_players + _POOL), 2 ** min(n_players, 60) - 2)
    alone = not game.together and bool(game.mask.all())
    if not alone or n_players > MOST_PLAYERS or not 2 * n_players < count < pool:
        return plan.measure_with_start(game)
    measurement = replace(plan, coalitions=pool, border=True).begin(game)
    assert measurement.total.shape[1] == 1, SEVERAL_OUTPUTS
    seen = 2 * n_players
    while seen < count:
        measurement.evaluate(seen)
        after = 2 * seen if count - 2 * seen >= n_players else count
        with plain_arithmetic(game.device):
            _choose(measurement, seen // 2, (after + 1) // 2)
        seen = after
    measurement.evaluate(count)
    return plan.read_beside(measurement.evidence(), game), measurement.start


def _choose(measurement: ShapleyMeasurement, n_seen: int, n_after: int) -> None:
    """Which pairs come next, up to ``n_after``, after so many ``n_seen``."""
    evidence, members = measurement.evidence(), measurement.members[:, ::2]
    step = max(1, _MOST_NUMBERS // members.shape[1] ** 2)
    for rows in torch.arange(len(members), device=members.device).split(step):
        measurement.prefer(rows, _telling(evidence[rows], members[rows], n_seen, n_after - n_seen), n_seen)


def _telling(evidence: Evidence, members: Tensor, n_seen: int, count: int) -> Tensor:
    acting, everyone = evidence.acting, evidence.players.unsqueeze(1)
    kernel = InteractionProcess(*seen_game(evidence), acting, gradients_of(evidence)).kernel
    signs = torch.cat([everyone, members], dim=1).double() * 2 - 1
    signs = torch.where(acting.unsqueeze(1), signs, 0.0)
    return telling_sums(kernel.rates, kernel.amounts, signs, n_seen + 1, count) - 1


def seen_game(evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """Coalitions ``(R, P, M)``, everyone and no one first, their worths ``(R, P)`` float64, and which are known."""
    coalitions, players = evidence.coalitions or border_coalitions(evidence), evidence.players
    members = torch.cat([torch.stack([players, torch.zeros_like(players)], dim=1), coalitions.members], dim=1)
    worths = torch.cat([torch.stack([evidence.total, 0 * evidence.total], dim=1), coalitions.worths], dim=1).double()
    known = torch.cat([torch.ones_like(coalitions.measured[:, :2]), coalitions.measured], dim=1)
    return members, worths, known & worths.isfinite()


def gradients_of(evidence: Evidence) -> Tensor:
    """At the three points of the path, ``(R, 3, M)`` float64; 0 where there are none."""
    return torch.where(evidence.measured, evidence.effects, 0.0)[..., :LEAVE_ONE_OUT].mT.double()
