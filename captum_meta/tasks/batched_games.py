"""Evidence and exact labels of many random models at once: what ``captum_meta.evidence`` does for one real model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from captum_meta.estimators import all_coalitions, gauss_legendre, path_nodes, plan_coalitions, shapley_values
from captum_meta.types import SHAPLEY_POINTS, Coalitions, Evidence, Explanations

MAX_EXACT = 12
_PERMUTATION_PAIRS = 16
_IG_POINTS, _IG_PIECES = 8, 12


@dataclass(frozen=True)
class BatchedGames:
    """Rows to explain of ``T`` models: ``f(x (T, R, M, V), rows (R,)) -> (T, R)``, rows naming the explained row.

    Attributes:
        function: the selected output of every model.
        inputs, baselines: ``(T, N, M, V)``.
        has_gradient: False for step functions.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    inputs: Tensor
    baselines: Tensor
    has_gradient: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """T models, N rows, M players."""
        return self.inputs.shape[0], self.inputs.shape[1], self.inputs.shape[2]

    def worths(self, members: Tensor) -> Tensor:
        """``(T, N, S)``, f minus f(baseline), of the coalitions ``(T, N, S, M)``."""
        n_tasks, n_rows, _, n_players = members.shape
        start = self.function(self.baselines, torch.arange(n_rows))
        chunk = max(1, 200_000 // max(1, n_tasks * n_rows * n_players))
        parts = []
        for some in members.split(chunk, dim=2):
            x = torch.where(some.unsqueeze(-1), self.inputs.unsqueeze(2), self.baselines.unsqueeze(2))
            rows = torch.arange(n_rows).repeat_interleave(some.shape[2])
            parts.append(self.function(x.flatten(1, 2), rows).unflatten(1, (n_rows, -1)))
        return torch.cat(parts, dim=-1) - start.unsqueeze(-1)

    def along(self, points: Tensor) -> Tensor:
        """Values ``(T, N, G)`` at points ``(G,)`` of the path."""
        rows = torch.arange(self.inputs.shape[1])
        on_path = (self.baselines.lerp(self.inputs, point) for point in points.tolist())
        return torch.stack([self.function(x, rows) for x in on_path], dim=-1)

    def gradients(self, points: Tensor, each_number: bool = False) -> tuple[Tensor, Tensor]:
        """Effects ``(T, N, M, G)`` (or ``(T, N, M * V, G)`` for each number) and values ``(T, N, G)`` along the path.

        The points are those of all rows, ``(G,)``, or of each, ``(T, N, G)``.
        """
        delta, rows = self.inputs - self.baselines, torch.arange(self.inputs.shape[1])
        effects, values = [], []
        for point in points.expand(*self.inputs.shape[:2], -1).unbind(-1):
            x = (self.baselines + point[..., None, None] * delta).requires_grad_(True)
            with torch.enable_grad():
                output = self.function(x, rows)
            gradient = torch.autograd.grad(output.sum(), x)[0] if self.has_gradient else torch.zeros_like(x)
            effect = gradient * delta
            effects.append(effect.flatten(2) if each_number else effect.sum(-1))
            values.append(output.detach())
        return torch.stack(effects, dim=-1), torch.stack(values, dim=-1)


def shapley_explanations(games: BatchedGames, coalitions: int, seed: int) -> Explanations:
    """Gradients, the border and up to ``coalitions`` coalitions, labelled with Shapley values.

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
        pair = (_permutation_effects(games, order) + _permutation_effects(games, order.flip(-1))) / 2
        total, total_square = total + pair, total_square + pair.square()
    mean = total / _PERMUTATION_PAIRS
    return mean, (total_square / _PERMUTATION_PAIRS - mean.square()) / (_PERMUTATION_PAIRS - 1)


def _permutation_effects(games: BatchedGames, order: Tensor) -> Tensor:
    rank = order.argsort(-1)
    members = rank.unsqueeze(-2) < torch.arange(rank.shape[-1] + 1).unsqueeze(-1)
    return games.worths(members).diff(dim=-1).gather(-1, rank)


def path_explanations(games: BatchedGames, n_points: int, each_number: bool, reference: Tensor | None) -> Explanations:
    """Gradients at ``n_points`` nodes of each row's own, labelled with long Integrated Gradients (or ``reference``).

    A single point stands for a mean over paths, as in GradientShap, so f at its middle is not told.
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
    nodes, weights = gauss_legendre(_IG_POINTS)
    answer = torch.zeros(())
    for piece in range(_IG_PIECES):
        effects, _ = games.gradients(((nodes + piece) / _IG_PIECES).float(), each_number)
        answer = answer + effects @ (weights / _IG_PIECES).float()
    return answer
