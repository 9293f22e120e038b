"""A small network in place of the explained model: it learns from coalitions of some rows and plays the games of others.

Shapley values are linear in the game: :math:`\\phi(f) = \\phi(h) + \\phi(f - h)`. Those of a network h that has learned f
cost no evaluation of f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from captum_meta.estimators import kernel_matrix, sample_coalitions
from captum_meta.types import SHAPLEY_POINTS, Evidence, State

SHARPNESS = 1.702
_COALITIONS = 32
_STRENGTH = 1e-6
_POINTS = 2**17
"""Evaluated at once."""


@dataclass(frozen=True)
class Committee:
    """Networks with two hidden layers; which member has how many votes differs from row to row.

    Attributes:
        weights: by name, ``(*batch, F, ...)``: F members of each task.
        votes: ``(*batch, F, N)``, by which the members' answers for a row are averaged.
        heads: ``(*batch, N)`` int64, which output of the networks is meant.
        unit: ``(*batch,)``, of their answers.
    """

    weights: State
    votes: Tensor
    heads: Tensor
    unit: Tensor

    def game(self, inputs: Tensor, baselines: Tensor) -> SurrogateGame:
        """The game of rows whose players' elements are ``(*batch, N, M, D)``."""
        start, gains = entering(self.weights, inputs, baselines)
        leave = leaving(self.weights, self.heads)

        def function(memberships: Tensor) -> Tensor:
            answers = forward(self.weights, start, gains, leave, memberships).values
            return (answers * self.votes.unsqueeze(-1)).sum(-3) * self.unit[..., None, None]

        return SurrogateGame(function, inputs[..., 0])


@dataclass(frozen=True)
class SurrogateGame:
    """The game of rows under a model that is cheap to evaluate.

    Attributes:
        function: the model at memberships ``(*batch, N, S, M)``, to ``(*batch, N, S)``: with 1 the player has the input's
            values, with 0 the baseline's, and between them it is as far along the straight line.
        like: ``(*batch, N, M)``, of what shape, precision and device rows are.
    """

    function: Callable[[Tensor], Tensor]
    like: Tensor

    def worths(self, members: Tensor) -> Tensor:
        """f minus f(baseline) of coalitions ``(*batch, N, S, M)``, ``(*batch, N, S)``."""
        some = max(1, _POINTS // max(1, self.like[..., 0].numel()))
        parts = [self.function(part.to(self.like)) for part in members.split(some, dim=-2)]
        return torch.cat(parts, dim=-1) - self.function(torch.zeros_like(self.like).unsqueeze(-2))

    def shapley_values(self) -> Tensor:
        """``(*batch, N, M)``, exact where there are at most 32 M coalitions, else by KernelSHAP with so many."""
        members, solution = (tensor.to(self.like.device) for tensor in _plan(self.like.shape[-1]))
        share = (self._total() / members.shape[-1]).unsqueeze(-1)
        worths = self.worths(members.expand(*self.like.shape[:-1], *members.shape))
        beyond = worths - share * members.sum(-1)
        return share + (beyond.to(solution) @ solution.mT).to(share)

    def taken_from(self, evidence: Evidence) -> Evidence:
        """Evidence of the explained model, without coalitions inside the border, minus that of this one."""
        effects, curve = self._slopes()
        n_players = self.like.shape[-1]
        single = torch.eye(n_players, dtype=torch.bool, device=self.like.device)
        single = single.expand(*self.like.shape[:-1], n_players, n_players)
        total = self._total()
        border = torch.stack([total.unsqueeze(-1) - self.worths(~single), self.worths(single)], dim=-1)
        effects = torch.where(evidence.measured, torch.cat([effects, border], dim=-1), 0.0)
        curve = torch.where(evidence.measured[..., :1, 1], curve, 0.0)
        return replace(
            evidence,
            effects=evidence.effects - effects,
            total=evidence.total - total,
            curve=evidence.curve - curve,
            coalitions=None,
        )

    def _total(self) -> Tensor:
        return self.worths(torch.ones_like(self.like, dtype=torch.bool).unsqueeze(-2)).squeeze(-1)

    def _slopes(self) -> tuple[Tensor, Tensor]:
        """Gradients times input minus baseline at the path points, ``(*batch, N, M, 3)``, and f there ``(*batch, N, 3)``."""
        along = torch.tensor(SHAPLEY_POINTS, dtype=self.like.dtype, device=self.like.device)

        def summed(at: Tensor) -> tuple[Tensor, Tensor]:
            values = self.function(at)
            return values.sum(), values

        slopes, values = torch.func.grad(summed, has_aux=True)(
            torch.ones_like(self.like).unsqueeze(-2) * along.unsqueeze(-1)
        )
        return slopes.mT, values - values[..., -1:]


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _plan(n_players: int) -> tuple[Tensor, Tensor]:
    """Coalitions ``(S, M)`` of any row, and KernelSHAP on them ``(M, S)``."""
    everyone = torch.ones(1, n_players, dtype=torch.bool)
    members, _ = sample_coalitions(everyone, _COALITIONS * n_players, 0, torch.zeros(1, dtype=torch.long))
    return members[0], kernel_matrix(members[0], _STRENGTH)


@dataclass(frozen=True)
class Pass:
    """What networks gave, ``values (*batch, F, N, S)``, and the sums into both hidden layers, ``(*batch, F, N * S, W)``."""

    values: Tensor
    first: Tensor
    second: Tensor


def sigmoid_gelu(x: Tensor) -> Tensor:
    """GELU by a sigmoid (Hendrycks and Gimpel 2016), whose derivative is as cheap."""
    return x * torch.sigmoid(SHARPNESS * x)


def entering(weights: State, inputs: Tensor, baselines: Tensor) -> tuple[Tensor, Tensor]:
    """Sums into the first layer: at baselines ``(*batch, F, N, W)``, and what players add ``(*batch, N, M, F * W)``."""
    enter = weights["enter"]
    start = baselines.flatten(-2).unsqueeze(-3) @ enter.flatten(-3, -2) + weights["enter bias"]
    by_player = enter.movedim(-4, -2).flatten(-2)
    return start, ((inputs - baselines).transpose(-3, -2) @ by_player).transpose(-3, -2)


def leaving(weights: State, heads: Tensor) -> Tensor:
    """Weights of each row's output, ``(*batch, F, N, W, 1)``."""
    leave = weights["leave"].mT
    index = heads[..., None, :, None].expand(*leave.shape[:-2], heads.shape[-1], leave.shape[-1])
    return leave.gather(-2, index).unsqueeze(-1)


def forward(weights: State, start: Tensor, gains: Tensor, leave: Tensor, memberships: Tensor) -> Pass:
    """Networks at memberships ``(*batch, N, S, M)`` of rows that are :func:`entering` and :func:`leaving` so."""
    added = (memberships @ gains).unflatten(-1, (start.shape[-3], -1)).movedim(-2, -4)
    first = (start.unsqueeze(-2) + added).flatten(-3, -2)
    second = sigmoid_gelu(first) @ weights["inner"] + weights["inner bias"]
    hidden = sigmoid_gelu(second).unflatten(-2, memberships.shape[-3:-1])
    return Pass((hidden @ leave).squeeze(-1), first, second)
