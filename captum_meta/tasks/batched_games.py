"""Evidence and exact labels of many random models at once, as ``captum_meta.evidence`` has it for one real model."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Generator, Tensor

from captum_meta.estimators import all_coalitions, path_nodes, plan_coalitions, shapley_values
from captum_meta.games import BatchedGames
from captum_meta.games.references import path_mean, permutation_gains
from captum_meta.types import LEAVE_ONE_OUT, SHAPLEY_POINTS, Coalitions, Evidence, Explanations

MAX_EXACT = 12
_PERMUTATION_PAIRS = 16
_IG_POINTS, _IG_PIECES = 8, 12


def shapley_explanations(games: BatchedGames, coalitions: int, seed: int) -> Explanations:
    """Gradients, the border (one player, and all but one) and up to ``coalitions`` coalitions, labelled with Shapley values.

    Up to 12 players the labels are exact; beyond, they are means over antithetic permutations (unbiased, with variance).
    """
    n_tasks, n_rows, n_players = games.shape
    points = torch.tensor(SHAPLEY_POINTS)
    effects, values = games.gradients(points)
    keys = torch.arange(n_tasks * n_rows)
    everyone = torch.ones(n_tasks * n_rows, n_players, dtype=torch.bool)
    members, _ = plan_coalitions(everyone, max(coalitions, 2 * n_players), seed, keys)
    members = members.unflatten(0, (n_tasks, n_rows))
    if n_players <= MAX_EXACT:
        everything = all_coalitions(n_players).expand(n_tasks, n_rows, -1, -1)
        table = games.worths(everything)
        labels, variance = shapley_values(table.double()).to(table), None
        codes = (members * 2 ** torch.arange(n_players)).sum(-1)
        worths, total = table.gather(-1, codes), table[..., -1]
    else:
        labels, variance = _permutation_labels(games, seed)
        worths = games.worths(members)
        total = values[..., 0] - values[..., 2]
    alone, without = _border(members, worths, total)
    effects = torch.cat([effects, without.unsqueeze(-1), alone.unsqueeze(-1)], dim=-1)
    measured = torch.ones_like(effects, dtype=torch.bool)
    measured[..., :3] = _told_by_gradients(games, effects[..., :3]).unsqueeze(-1)
    evidence = Evidence(
        effects=effects,
        measured=measured,
        players=everyone.unflatten(0, (n_tasks, n_rows)),
        total=total,
        curve=values - values[..., 2:],
        points=points.expand(n_tasks, n_rows, -1),
        coalitions=Coalitions(members, worths, torch.ones_like(worths, dtype=torch.bool)),
        inputs=_player_inputs(games, each_number=False),
    )
    return Explanations(evidence, labels, variance if variance is not None else torch.zeros_like(labels))


def chosen_without_border(explained: Explanations, games: BatchedGames, coalitions: int, seed: int) -> Explanations:
    """The same rows with gradients and ``coalitions`` coalitions chosen by information, without a border before them.

    So rows of saturated models are measured at 2M (:mod:`captum_meta.evidence.shapley`). Of the border is known what
    happens to be among these coalitions, and of players without a gradient all.
    """
    n_tasks, n_rows, n_players = games.shape
    everyone = torch.ones(n_tasks * n_rows, n_players, dtype=torch.bool)
    keys, freely = torch.arange(len(everyone)), torch.ones(len(everyone), dtype=torch.bool)
    members = plan_coalitions(everyone, coalitions, seed, keys, freely=freely)[0].unflatten(0, (n_tasks, n_rows))
    worths, before = games.worths(members), explained.evidence
    sizes = members.sum(-1, keepdim=True)
    flat = ~before.measured[..., :LEAVE_ONE_OUT].any(-1)
    left_out = flat | (~members & (sizes == n_players - 1)).any(-2)
    added = flat | (members & (sizes == 1)).any(-2)
    measured = torch.cat([before.measured[..., :LEAVE_ONE_OUT], torch.stack([left_out, added], dim=-1)], dim=-1)
    evidence = replace(
        before,
        effects=torch.where(measured, before.effects, 0.0),
        measured=measured,
        coalitions=Coalitions(members, worths, torch.ones_like(worths, dtype=torch.bool)),
    )
    return replace(explained, evidence=evidence)


def _told_by_gradients(games: BatchedGames, effects: Tensor) -> Tensor:
    """Players ``(T, N, M)`` whose gradient does not vanish at all points, or who do not change: others are unknown."""
    changed = (games.inputs != games.baselines).any(-1)
    telling = (effects != 0).any(-1)
    return telling | (~changed & telling.any(-1, keepdim=True))


def _border(members: Tensor, worths: Tensor, total: Tensor) -> tuple[Tensor, Tensor]:
    """Add-one-in and leave-one-out effects ``(T, N, M)`` from a plan that covers the border."""
    sizes = members.sum(-1, keepdim=True)
    alone = torch.where(members & (sizes == 1), worths.unsqueeze(-1), 0.0).sum(-2)
    rest = total.unsqueeze(-1) - worths
    without = torch.where(~members & (sizes == members.shape[-1] - 1), rest.unsqueeze(-1), 0.0).sum(-2)
    return alone, without


def _permutation_labels(games: BatchedGames, seed: int) -> tuple[Tensor, Tensor]:
    """Means over antithetic pairs of permutations, and the variance of these means; both ``(T, N, M)``."""
    n_tasks, n_rows, n_players = games.shape
    generator = Generator().manual_seed(seed)
    total = total_square = torch.zeros(())
    for _ in range(_PERMUTATION_PAIRS):
        order = torch.rand(n_tasks, n_rows, n_players, generator=generator).argsort(-1)
        pair = (permutation_gains(games.worths, order) + permutation_gains(games.worths, order.flip(-1))) / 2
        total, total_square = total + pair, total_square + pair.square()
    mean = total / _PERMUTATION_PAIRS
    return mean, (total_square / _PERMUTATION_PAIRS - mean.square()) / (_PERMUTATION_PAIRS - 1)


def path_explanations(games: BatchedGames, n_points: int, each_number: bool, reference: Tensor | None) -> Explanations:
    """Gradients at ``n_points`` nodes of each row's own, labelled with long Integrated Gradients (or ``reference``).

    A single point stands for a mean over paths, as in GradientShap, so f at its middle is not given.
    """
    known = games.along(torch.tensor([0.0, 0.5, 1.0]))
    nodes = path_nodes(known.flatten(0, 1), n_points).unflatten(0, known.shape[:2]).float()
    effects, values = games.gradients(nodes, each_number)
    start, end = known[..., 0], known[..., 2]
    curve = values - start.unsqueeze(-1) if n_points > 1 else ((end - start) / 2).unsqueeze(-1)
    evidence = Evidence(
        effects=effects,
        measured=torch.ones_like(effects, dtype=torch.bool),
        players=torch.ones(effects.shape[:-1], dtype=torch.bool),
        total=end - start,
        curve=curve,
        points=nodes,
        inputs=_player_inputs(games, each_number),
    )
    labels = long_integrated_gradients(games, each_number) if reference is None else reference
    return Explanations(evidence, labels, torch.zeros_like(labels))


def _player_inputs(games: BatchedGames, each_number: bool) -> Tensor:
    """Sums of each player's inputs and baselines, ``(T, N, M, 2)``, as :mod:`captum_meta.evidence` tells them."""
    sides = (games.inputs, games.baselines)
    return torch.stack([side.flatten(2) if each_number else side.sum(-1) for side in sides], dim=-1)


def long_integrated_gradients(games: BatchedGames, each_number: bool) -> Tensor:
    """Composite Gauss-Legendre quadrature with 96 gradients, ``(T, N, M)``."""

    def effects(points: Tensor) -> Tensor:
        return games.gradients(points.float(), each_number)[0]

    return path_mean(effects, _IG_POINTS, _IG_PIECES).to(games.inputs)
