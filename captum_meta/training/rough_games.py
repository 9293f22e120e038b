"""Random models without useful gradients: games of conjunctions, decision trees, networks behind steps.

Error estimates are calibrated on them and the models of :class:`captum_meta.tasks.SyntheticTaskFamily`.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from captum_meta.games import BatchedGames
from captum_meta.tasks import random_data, random_models
from captum_meta.tasks.random_data import normal, pick
from captum_meta.tasks.random_models import BatchedModel, integer

_ROWS = 256


class Conjunctions(BatchedModel):
    """Weighted sums of conjunctions, disjunctions and majorities of a few literals: a player above 0, or not above it."""

    has_gradient = False

    def __init__(self, n_tasks: int, n_players: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        n_terms, most = pick(generator, 1, 2, 4, n_players, 2 * n_players), min(n_players, pick(generator, 2, 3, 4, 6))
        sizes = torch.randint(1, most + 1, (n_tasks, n_terms, 1), generator=generator)
        ranks = torch.rand(n_tasks, n_terms, n_players, generator=generator).argsort(-1).argsort(-1)
        self.chosen = (ranks < sizes).float()
        self.negative = self.chosen * (torch.rand(self.chosen.shape, generator=generator) < pick(generator, 0.0, 0.3, 0.6))
        least = torch.stack([sizes, torch.ones_like(sizes), sizes // 2 + 1], dim=-1).squeeze(2)
        kind = torch.randint(pick(generator, 1, 3), (n_tasks, n_terms, 1), generator=generator)
        self.least = least.gather(-1, kind).squeeze(-1)
        self.weights = pick(generator, torch.ones(n_tasks, n_terms), normal((n_tasks, n_terms), generator))

    def __call__(self, x: Tensor) -> Tensor:
        true = (x.squeeze(-1) > 0).float()
        met = true @ (self.chosen - 2 * self.negative).mT + self.negative.sum(-1).unsqueeze(1)
        return ((met >= self.least.unsqueeze(1)).float() @ self.weights.unsqueeze(-1)).squeeze(-1)


class DecisionTrees(BatchedModel):
    """Means of decision trees, each node with a feature and threshold of its own, or the sigmoid of their sums."""

    has_gradient = False

    def __init__(self, n_tasks: int, n_players: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.depth, n_trees = integer(1, 6, generator), pick(generator, 1, 3, 10, 30)
        nodes = (n_tasks, n_trees, 2**self.depth - 1)
        self.features = torch.randint(n_players, nodes, generator=generator)
        self.thresholds = 0.7 * normal(nodes, generator)
        leaves = normal((n_tasks, n_trees, 2**self.depth), generator)
        self.leaves = pick(generator, leaves, (leaves > 0).float())
        self.gain = pick(generator, 0.0, 2.0, 6.0)

    def __call__(self, x: Tensor) -> Tensor:
        flat, n_trees = x.squeeze(-1), self.leaves.shape[1]
        node = torch.zeros(*flat.shape[:2], n_trees, dtype=torch.long)
        for level in range(self.depth):
            index = (node + 2**level - 1).transpose(1, 2)
            feature = self.features.gather(2, index).transpose(1, 2)
            node = 2 * node + (flat.gather(2, feature) > self.thresholds.gather(2, index).transpose(1, 2))
        values = self.leaves.gather(2, node.transpose(1, 2)).mean(1)
        return torch.sigmoid(self.gain * n_trees**0.5 * values) if self.gain else values


class Steps(BatchedModel):
    """A random network whose inputs, or whose output, are rounded."""

    has_gradient = False

    def __init__(self, n_tasks: int, n_players: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        architecture = pick(generator, random_models.MLP, random_models.ResidualMLP, random_models.Interactions)
        self.network = architecture(n_tasks, n_players, 1, 1, generator)
        self.inner = pick(generator, 1.0, 2.0, 0.0)
        self.outer = pick(generator, 0.0, 2.0, 5.0) if self.inner else pick(generator, 2.0, 5.0)

    def __call__(self, x: Tensor) -> Tensor:
        values = self.network((self.inner * x).round() if self.inner else x).squeeze(-1)
        return (self.outer * values).round() if self.outer else values


ROUGH: dict[str, Callable[[int, int, Generator], BatchedModel]] = {
    "conjunctions": Conjunctions,
    "trees": DecisionTrees,
    "steps": Steps,
}


def rough_games(kind: str, n_tasks: int, n_players: int, rows: int, generator: Generator) -> BatchedGames:
    """Models of one kind of :data:`ROUGH` with rows to explain, baselines other rows, the mean or a constant row."""
    x = random_data.tables(n_tasks, _ROWS, n_players, generator)
    model = ROUGH[kind](n_tasks, n_players, generator)
    others = x[:, rows : 2 * rows]
    baselines = pick(generator, others, others[:, :1].expand_as(others), x.mean(1, keepdim=True).expand_as(others))
    return BatchedGames(lambda batch, _: model(batch), x[:, :rows], baselines, has_gradient=False)
