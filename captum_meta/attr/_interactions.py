"""Interactions of pairs of players from measured evidence, for the Shapley front ends."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from captum_meta._warnings import warn
from captum_meta.attr._arithmetic import chunks_for_matrices, plain_arithmetic
from captum_meta.attr._background import by_output, completed, inert, process_of, table_of
from captum_meta.attr._interaction_rounds import gradients_of, seen_game
from captum_meta.attr._pair_support import MAX_POINTS, PairSupport, SupportedPairs
from captum_meta.estimators import InteractionProcess, InteractionRule, ProbabilityProcess, interactions
from captum_meta.estimators.interactions import EFFICIENT
from captum_meta.estimators.probability_process import may_be_probabilities
from captum_meta.games import Game, MeanGame
from captum_meta.nn.refinement import MAX_POSTERIOR
from captum_meta.types import Evidence

SHAPLEY_INDICES = ("SII", "k-SII")
"""Indices whose main effects are computed from Shapley values."""
_COALITIONS = 16
"""Default number of coalitions per player."""
_MAX_PLAYERS = 256
_MAX_TABLE = 16
"""Up to so many players there is a table of all coalitions: of those beyond the 2,048 that a posterior reads, and of what is
expected of a probability."""
_TABLES = 2**18
"""Numbers in the tables of the rows computed at once."""


def check_interactions(game: Any, index: str, n_samples: int | None) -> None:
    """Raises ``ValueError`` for an unknown index, for no coalitions, and for players whose pairs are too many."""
    InteractionRule.of(index, 1)
    if n_samples == 0:
        raise ValueError("n_samples is 0, but gradients alone tell no interactions: pass the number of coalitions.")
    if game.players.count > _MAX_PLAYERS:
        raise ValueError(
            f"The rows have {game.players.count} players, whose pairs are too many: pass a feature_mask that "
            f"groups them into at most {_MAX_PLAYERS}."
        )


def coalitions_for_interactions(game: Game, n_samples: int | None, per_player: bool) -> int:
    """Number of coalitions per row; warns where they are too few, or more than are read."""
    n_players = game.players.count
    count = min(_COALITIONS * n_players, MAX_POSTERIOR) if n_samples is None else n_samples
    count = count * n_players if n_samples is not None and per_player else count
    most = 2**n_players - 2 if n_players <= _MAX_TABLE else MAX_POSTERIOR
    if n_players > 3 and count <= 2 * n_players:
        warn(
            f"{count} coalitions per row are no more than those of one player and of all but one, which tell a player's "
            f"interactions with all others together: pass n_samples for more, such as {_COALITIONS * n_players} coalitions."
        )
    if n_players > _MAX_TABLE and count > most:
        warn(f"Of {n_players} players {most} coalitions per row are read at most, so no more are evaluated.")
    return min(count, most)


def expected_interactions(evidence: Evidence, start: Tensor, shapley: Tensor | None, index: str) -> Tensor:
    """``(R, M, M)`` of measured rows, exact where all coalitions are known.

    Args:
        evidence: of R rows.
        start: ``(R,)``, f of their baselines.
        shapley: ``(R, M)``, their Shapley values, where the index is made of these.
    """
    parts = chunks_for_matrices(evidence)
    starts = start.double().split([len(part.total) for part in parts])
    with plain_arithmetic(evidence.total.device):
        found = torch.cat([_of_rows(*part, index) for part in zip(parts, starts, strict=True)])
    found = found if shapley is None else with_shapley_values(found, shapley, index)
    acting = evidence.acting
    return torch.where(acting.unsqueeze(1) & acting.unsqueeze(2), found, 0.0).to(evidence.total)


def with_shapley_values(found: Tensor, shapley: Tensor, index: str) -> Tensor:
    """Interactions ``(R, M, M)`` with main effects from these Shapley values ``(R, M)``."""
    apart = found - torch.diag_embed(found.diagonal(dim1=-2, dim2=-1))
    return InteractionRule.of(index, found.shape[-1]).joined(shapley.to(found), apart)


def _of_rows(evidence: Evidence, start: Tensor, index: str) -> Tensor:
    """``(R, M, M)`` float64."""
    players, (members, worths, known) = evidence.players, seen_game(evidence)
    n_rows, _, n_players = members.shape
    complete = known.sum(1) >= 2.0**evidence.n_players
    found = torch.full((n_rows, n_players, n_players), torch.nan, dtype=torch.float64, device=players.device)
    for row in complete.nonzero().flatten().tolist():
        own = players[row]
        table = _table(members[row][:, own], worths[row], known[row])
        found[row] = 0.0
        found[row][own.unsqueeze(1) & own] = interactions(table, index).flatten()
    rest = ~complete & evidence.total.isfinite()
    values = worths + start.unsqueeze(1)
    bounded = may_be_probabilities(values, known) & (n_players <= _MAX_TABLE)
    step = max(1, _TABLES >> min(n_players, _MAX_TABLE))
    for of_kind, seen, process in ((~bounded, worths, InteractionProcess), (bounded, values, ProbabilityProcess)):
        for rows in (rest & of_kind).nonzero().flatten().split(step):
            if len(rows):
                found[rows] = _from_process(evidence[rows], members[rows], seen[rows], known[rows], index, process)
    return found


def _table(members: Tensor, worths: Tensor, known: Tensor, expected: Tensor | None = None) -> Tensor:
    """Worths of all coalitions ``(2**M,)``: those ``expected``, but for the known ones among ``members (S, M)``."""
    codes = (members * 2 ** torch.arange(members.shape[1], device=members.device)).sum(-1)
    table = worths.new_zeros(2 ** members.shape[1]) if expected is None else expected.clone()
    table[codes[known]] = worths[known]
    return table


def _from_process(
    evidence: Evidence,
    members: Tensor,
    worths: Tensor,
    known: Tensor,
    index: str,
    kind: type[InteractionProcess] | type[ProbabilityProcess],
) -> Tensor:
    """``(R, M, M)`` float64."""
    acting, n_players = evidence.acting, members.shape[-1]
    read = slice(0, MAX_POSTERIOR + 2)
    process = kind(members[:, read], worths[:, read], known[:, read], acting, gradients_of(evidence))
    closed_form = n_players > _MAX_TABLE or members.shape[1] <= MAX_POSTERIOR + 2
    if closed_form and isinstance(process, InteractionProcess):
        found = process.interactions(InteractionRule.of(index, n_players))
    else:
        rows = zip(members, worths, known, process.all_worths(), strict=True)
        found = torch.stack([interactions(_table(*row), index) for row in rows])
    found = torch.where(acting.unsqueeze(1) & acting.unsqueeze(2), found, 0.0)
    return _completed(found, evidence.total.double(), acting, index)


def _completed(found: Tensor, total: Tensor, acting: Tensor, index: str) -> Tensor:
    """Interactions ``(R, M, M)`` that sum to ``total (R,)``, where the index says so.

    What rounding and noise leave is shared by STII's pairs, as its main effects are known; of other indices by main effects.
    """
    if index not in EFFICIENT:
        return found
    single = torch.diag_embed(acting)
    pairs = (acting.unsqueeze(1) & acting.unsqueeze(2) & ~single).triu(1)
    shares = torch.where(pairs.any(-1).any(-1)[:, None, None], pairs, single) if index == "STII" else single
    missing = total - found.triu().sum((1, 2))
    added = shares * (missing / shares.sum((1, 2)).clamp(min=1))[:, None, None]
    return found + added + added.triu(1).mT


def interactions_of_mean_game(
    game: MeanGame, budgets: Tensor, index: str, seed: int, support: PairSupport | None = None
) -> Tensor:
    """``(N * O, M, M)`` of the mean game over background rows, from ``budgets (N,)`` pairs; exact where these are all.

    ``support`` is what is known of the model from other rows.
    """
    n_players = game.players.count
    every = (2.0 ** game.mask.sum(1) - 2) * game.count
    most = max(MAX_POINTS - 1 - game.count, 2 * n_players)
    if bool(((budgets > most) & (budgets < every)).any()):
        warn(f"{most} pairs of a coalition and a background row are read per row at most, so no more are evaluated.")
        budgets = torch.where(budgets < every, budgets.clamp(max=most), budgets)
    measurement = SupportedPairs(game, budgets, seed, support)
    measurement.evaluate()
    rule, shares = InteractionRule.of(index, n_players), game.weights
    noise = measurement.rounding()
    found = measurement.total.new_zeros(*measurement.total.shape, n_players, n_players)
    with plain_arithmetic(game.device):
        for row in measurement.complete.nonzero().flatten().tolist():
            own = game.mask[row]
            table = table_of(measurement, row)
            acts = ~inert(table, noise[row])
            of_all = interactions(table, index) * (acts.unsqueeze(1) & acts.unsqueeze(2))
            found[row][:, own.unsqueeze(1) & own] = of_all.flatten(1)
        rest = (~measurement.complete).nonzero().flatten()

        def of_output(rows: Tensor, output: int, distances: Tensor, seats: Tensor, idle: Tensor) -> tuple[Tensor]:
            process = process_of(measurement, rows, output, distances, seats, idle)
            acting = ~idle & game.mask[rows]
            values = process.interactions(shares, rule) * (acting.unsqueeze(1) & acting.unsqueeze(2))
            if index in SHAPLEY_INDICES:
                main = completed(process.shapley_values(shares), measurement.total[rows, output], acting)
                return (with_shapley_values(values, main, index),)
            return (_completed(values, measurement.total[rows, output], acting, index),)

        if len(rest):
            (found[rest],) = by_output(measurement, rest, of_output)
    return found.flatten(0, 1).to(measurement.everyone)
