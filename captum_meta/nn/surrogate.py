"""A small network in place of the explained model: it learns from coalitions of some rows and plays the games of others.

Shapley values are linear in the game: :math:`\\phi(f) = \\phi(h) + \\phi(f - h)`. Those of a network h that has learned f
cost no evaluation of f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Generator, Tensor

from captum_meta.estimators import kernel_matrix, plan_coalitions
from captum_meta.types import SHAPLEY_POINTS, Evidence, State

_WIDTH = 32
_STEPS, _RATE, _DECAY = 300, 0.01, 0.3
_BATCH = 256
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

    def __call__(self, points: Tensor) -> Tensor:
        """``(*batch, N, S)``, of the points ``(*batch, N, S, M)``."""
        n_rows, n_points = points.shape[-3:-1]
        answers = forward(self.weights, points.flatten(-3, -2).unsqueeze(-3)).unflatten(-2, (n_rows, n_points))
        heads = self.heads[..., None, :, None, None].expand(*answers.shape[:-1], 1)
        voted = (answers.gather(-1, heads).squeeze(-1) * self.votes.unsqueeze(-1)).sum(-3)
        return voted * self.unit[..., None, None]


@dataclass(frozen=True)
class SurrogateGame:
    """The game of rows under a model that is cheap to evaluate.

    Attributes:
        function: the model, ``(*batch, N, S, M)`` to ``(*batch, N, S)``.
        inputs, baselines: ``(*batch, N, M)``; equal for players that have no part in the game.
    """

    function: Callable[[Tensor], Tensor]
    inputs: Tensor
    baselines: Tensor

    def worths(self, members: Tensor) -> Tensor:
        """f minus f(baseline) of coalitions ``(*batch, N, S, M)``, ``(*batch, N, S)``."""
        some = max(1, _POINTS // self.inputs[..., 0].numel())
        parts = [self.function(self._at(part)) for part in members.split(some, dim=-2)]
        return torch.cat(parts, dim=-1) - self.function(self.baselines.unsqueeze(-2))

    def _at(self, members: Tensor) -> Tensor:
        return torch.where(members, self.inputs.unsqueeze(-2), self.baselines.unsqueeze(-2))

    def shapley_values(self) -> Tensor:
        """``(*batch, N, M)``, exact where there are at most 32 M coalitions, else by KernelSHAP with so many."""
        members, solution = (tensor.to(self.inputs.device) for tensor in _plan(self.inputs.shape[-1]))
        share = (self._total() / members.shape[-1]).unsqueeze(-1)
        worths = self.worths(members.expand(*self.inputs.shape[:-1], *members.shape))
        beyond = worths - share * members.sum(-1)
        return share + (beyond.to(solution) @ solution.mT).to(share)

    def taken_from(self, evidence: Evidence) -> Evidence:
        """Evidence of the explained model, without coalitions inside the border, minus that of this one."""
        effects, curve = self._slopes()
        n_players = self.inputs.shape[-1]
        single = torch.eye(n_players, dtype=torch.bool, device=self.inputs.device)
        single = single.expand(*self.inputs.shape[:-1], n_players, n_players)
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
        return self.worths(torch.ones_like(self.inputs, dtype=torch.bool).unsqueeze(-2)).squeeze(-1)

    def _slopes(self) -> tuple[Tensor, Tensor]:
        """Gradients times input minus baseline at the path points, ``(*batch, N, M, 3)``, and f there ``(*batch, N, 3)``."""
        delta = self.inputs - self.baselines
        along = torch.tensor(SHAPLEY_POINTS, dtype=delta.dtype, device=delta.device)
        points = self.baselines.unsqueeze(-2) + along.unsqueeze(-1) * delta.unsqueeze(-2)

        def summed(at: Tensor) -> tuple[Tensor, Tensor]:
            values = self.function(at)
            return values.sum(), values

        slopes, values = torch.func.grad(summed, has_aux=True)(points)
        return (slopes * delta.unsqueeze(-2)).mT, values - values[..., -1:]


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _plan(n_players: int) -> tuple[Tensor, Tensor]:
    """Coalitions ``(S, M)`` of any row, and KernelSHAP on them ``(M, S)``."""
    everyone = torch.ones(1, n_players, dtype=torch.bool)
    members, _ = plan_coalitions(everyone, _COALITIONS * n_players, 0, torch.zeros(1, dtype=torch.long))
    return members[0], kernel_matrix(members[0], _STRENGTH)


def forward(weights: State, points: Tensor) -> Tensor:
    """Outputs ``(*batch, F, P, C)`` at ``points`` ``(*batch, 1 or F, P, M)``."""
    hidden = torch.nn.functional.gelu(points @ weights["enter"] + weights["enter bias"])
    hidden = torch.nn.functional.gelu(hidden @ weights["inner"] + weights["inner bias"])
    return hidden @ weights["leave"]


def learn(
    points: Tensor, starts: Tensor, worths: Tensor, known: Tensor, heads: Tensor, n_heads: int, ranks: Tensor
) -> State:
    """Networks whose differences are the worths: weights ``(*batch, F, ...)`` after some hundred steps of AdamW.

    Args:
        points: ``(*batch, K, S, M)``, where the model is known.
        starts: ``(*batch, K, M)``, the baselines, from which the worths count.
        worths: ``(*batch, K, S)``, in units of their root mean square.
        known: ``(*batch, F, K, S)`` bool, which of them each member learns from.
        heads: ``(*batch, K)`` int64, of which output these are.
        n_heads: number of outputs.
        ranks: ``(*batch, M)`` int64, the players' numbers, by which initial weights are given to them.
    """
    with torch.inference_mode(False), torch.enable_grad():
        points, starts, worths, known, heads = (part.detach().clone() for part in (points, starts, worths, known, heads))
        generator = Generator().manual_seed(0)
        weights = _initial(ranks, known.shape[-3], n_heads, generator, points)
        parameters = {name: value.requires_grad_(True) for name, value in weights.items()}
        optimizer = torch.optim.AdamW(list(parameters.values()), _RATE, weight_decay=_DECAY)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _STEPS, pct_start=0.2)
        n_rows, n_points = worths.shape[-2:]
        head = heads[..., None, :, None, None]
        for _ in range(_STEPS):
            some = torch.randint(n_points, (-(-_BATCH // n_rows),), generator=generator).to(points.device)
            at = torch.cat([points[..., some, :], starts.unsqueeze(-2)], dim=-2)
            answers = forward(parameters, at.flatten(-3, -2).unsqueeze(-3)).unflatten(-2, at.shape[-3:-1])
            answers = answers.gather(-1, head.expand(*answers.shape[:-1], 1)).squeeze(-1)
            missed = (answers[..., :-1] - answers[..., -1:] - worths[..., some].unsqueeze(-3)) * known[..., some]
            optimizer.zero_grad()
            missed.square().mean((-2, -1)).sum().backward()
            optimizer.step()
            schedule.step()
    return {name: value.detach() for name, value in parameters.items()}


def _initial(ranks: Tensor, members: int, n_heads: int, generator: Generator, like: Tensor) -> State:
    """The same initial weights for all members, tasks and outputs."""

    def normal(rows: int, columns: int) -> Tensor:
        drawn = torch.randn(rows, columns, generator=generator, dtype=torch.float32) / rows**0.5
        return drawn.to(like)

    def repeated(value: Tensor) -> Tensor:
        return value.unsqueeze(-3).repeat(*[1] * (ranks.dim() - 1), members, 1, 1)

    batch = ranks.shape[:-1]
    enter = normal(ranks.shape[-1], _WIDTH)[ranks]
    inner, leave = normal(_WIDTH, _WIDTH), normal(_WIDTH, 1).expand(-1, n_heads)
    nothing = like.new_zeros(*batch, 1, _WIDTH)
    return {
        "enter": repeated(enter),
        "enter bias": repeated(nothing),
        "inner": repeated(inner.expand(*batch, -1, -1)),
        "inner bias": repeated(nothing),
        "leave": repeated(leave.expand(*batch, -1, -1)),
    }
