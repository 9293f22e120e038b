"""The game of a model that is cheap to evaluate, in place of the explained one.

Shapley values are linear in the game: :math:`\\phi(f) = \\phi(h) + \\phi(f - h)`. Those of a network h that has learned f
cost no evaluation of f.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property, lru_cache

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.estimators import plan_coalitions, shapley_matrix
from captum_meta.types import SHAPLEY_POINTS, Evidence

_COALITIONS, _LEAST_COALITIONS = 8, 256
"""Coalitions per player, and at least."""
_POINTS = 2**17
"""Points evaluated at once."""


@dataclass(frozen=True)
class SurrogateGame:
    """The game of rows under a model that is cheap to evaluate.

    Attributes:
        function: the model at memberships ``(*batch, N, S, M)``, to ``(*batch, N, S)``: with 1 the player has the input's
            values, with 0 the baseline's, and between them it is as far along the straight line.
        like: ``(*batch, N, M)``, with the shape, precision and device of the rows.
        derivative: the model's gradients along memberships, ``(*batch, N, S, M)``, and its values there; None: those that
            torch finds, of which there are no further derivatives.
    """

    function: Callable[[Tensor], Tensor]
    like: Tensor
    derivative: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None

    def worths(self, members: Bool[Tensor, "*batch N S M"]) -> Float[Tensor, "*batch N S"]:
        """f minus f(baseline) of coalitions ``(*batch, N, S, M)``, ``(*batch, N, S)``."""
        some = max(1, _POINTS // max(1, self.like[..., 0].numel()))
        parts = [self.function(part.to(self.like)) for part in members.split(some, dim=-2)]
        return torch.cat(parts, dim=-1) - self._start

    def shapley_values(self) -> Float[Tensor, "*batch N M"]:
        """``(*batch, N, M)``, exact up to 8 players, else by :func:`~captum_meta.estimators.shapley_matrix`.

        8 coalitions per player, and at least 256, are as exact as 32 per player drawn for KernelSHAP.
        """
        members, solution = (tensor.to(self.like.device) for tensor in _plan(self.like.shape[-1]))
        total = self._total.unsqueeze(-1)
        share = total / members.shape[-1]
        worths = self.worths(members.expand(*self.like.shape[:-1], *members.shape))
        members, other = members[::2], members[1::2]
        beyond = (worths[..., ::2] - worths[..., 1::2] - share * (members.sum(-1) - other.sum(-1))) / 2
        return share + (beyond.to(solution) @ solution.mT).to(share)

    def taken_from(self, evidence: Evidence) -> Evidence:
        """The explained model's evidence, without coalitions inside the border, minus this game's."""
        effects, curve = self._gradients()
        n_players = self.like.shape[-1]
        single = torch.eye(n_players, dtype=torch.bool, device=self.like.device)
        single = single.expand(*self.like.shape[:-1], n_players, n_players)
        total = self._total
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

    @cached_property
    def _start(self) -> Float[Tensor, "*batch N 1"]:
        """f(baseline)."""
        return self.function(torch.zeros_like(self.like).unsqueeze(-2))

    @cached_property
    def _total(self) -> Float[Tensor, "*batch N"]:
        return self.worths(torch.ones_like(self.like, dtype=torch.bool).unsqueeze(-2)).squeeze(-1)

    def _gradients(self) -> tuple[Float[Tensor, "*batch N M 3"], Float[Tensor, "*batch N 3"]]:
        """Gradients times input minus baseline at the path points, ``(*batch, N, M, 3)``, and f there ``(*batch, N, 3)``."""
        along = torch.tensor(SHAPLEY_POINTS, dtype=self.like.dtype, device=self.like.device)
        derivative = self.derivative or self._differentiated
        gradients, values = derivative(torch.ones_like(self.like).unsqueeze(-2) * along.unsqueeze(-1))
        return gradients.mT, values - values[..., -1:]

    def _differentiated(self, memberships: Tensor) -> tuple[Tensor, Tensor]:
        """By ``torch.autograd``: ``torch.func.grad`` imports torch's compiler."""
        with torch.inference_mode(False), torch.enable_grad():
            at = memberships.clone().requires_grad_()
            values = self.function(at)
            return torch.autograd.grad(values.sum(), at)[0], values.detach()


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _plan(n_players: int) -> tuple[Bool[Tensor, "S M"], Float[Tensor, "M P"]]:
    """Coalitions ``(S, M)`` of any row, and the matrix ``(M, S / 2)`` of what their pairs have beyond equal shares."""
    everyone = torch.ones(1, n_players, dtype=torch.bool)
    count = max(_LEAST_COALITIONS, _COALITIONS * n_players)
    members = plan_coalitions(everyone, count, 0, torch.zeros(1, dtype=torch.long))[0][0]
    return members, shapley_matrix(torch.cat([everyone, members[::2]]))[:, 1:]
