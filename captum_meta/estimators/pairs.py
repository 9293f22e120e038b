"""The data and the prior of the hypercube posterior."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.records import Record, part


@dataclass(frozen=True)
class CoalitionPairs(Record):
    """Coalitions whose complements were evaluated too. Shapley values depend on the differences of the two alone.

    Attributes:
        members: ``(*batch, P, M)`` bool, which players one coalition of each pair has; its complement has the others.
        differences: ``(*batch, P)``, f of this coalition minus f of its complement.
        measured: ``(*batch, P)`` bool, False for padding.
        players: ``(*batch, M)`` bool, False for padding.
        total: ``(*batch,)``, f(input) - f(baseline): the pair of everyone and no one.
    """

    members: Bool[Tensor, "*batch P M"] = field(metadata=part("P M"))
    differences: Float[Tensor, "*batch P"] = field(metadata=part("P", scale=1))
    measured: Bool[Tensor, "*batch P"] = field(metadata=part("P"))
    players: Bool[Tensor, "*batch M"] = field(metadata=part("M"))
    total: Float[Tensor, "*batch"] = field(metadata=part(scale=1))

    def with_everyone(self) -> CoalitionPairs:
        """The pair of everyone and no one, then these; differences are 0 where they were not measured."""
        everyone, whole = self.players.unsqueeze(-2), self.total.unsqueeze(-1)
        return replace(
            self,
            members=torch.cat([everyone, self.members & everyone], dim=-2),
            differences=torch.cat([whole, torch.where(self.measured, self.differences, 0.0)], dim=-1),
            measured=torch.cat([torch.ones_like(whole, dtype=torch.bool), self.measured], dim=-1),
        )

    def signs(self) -> Float[Tensor, "*batch P M"]:
        """1 for players in, -1 for players out, and 0 throughout for a pair that was not measured, ``(*batch, P, M)``."""
        signs = self.members.to(self.differences) * 2 - 1
        return torch.where(self.measured.unsqueeze(-1), signs, 0.0)

    def residual(self, signs: Float[Tensor, "*batch P M"], mean: Float[Tensor, "*batch M"]) -> Float[Tensor, "*batch P"]:
        """Half of the differences minus those of the additive game of ``mean (*batch, M)``, ``(*batch, P)``."""
        return (self.differences - (signs @ mean.unsqueeze(-1)).squeeze(-1)) / 2


@dataclass(frozen=True)
class HypercubePrior(Record):
    """The prior of a game, before any coalition is seen.

    Attributes:
        mean: ``(*batch, M)``, Shapley values, in the units of the pairs' differences.
        additive: ``(*batch, M)``, at least 0: variance of each player's mean, tau of the posterior's formula.
        rates: ``(*batch, M)`` in [0, 1): how much each player interacts, rho of the formula.
        directions: ``(*batch, D, M)``, along which the game is expected to change; zeros where nothing is.
    """

    mean: Float[Tensor, "*batch M"] = field(metadata=part("M", scale=1))
    additive: Float[Tensor, "*batch M"] = field(metadata=part("M"))
    rates: Float[Tensor, "*batch M"] = field(metadata=part("M"))
    directions: Float[Tensor, "*batch D M"] = field(metadata=part("D M"))

    def among(self, players: Bool[Tensor, "*batch M"]) -> HypercubePrior:
        """The same, with zeros for all but the ``players (*batch, M)``."""
        mean, additive, rates = (torch.where(players, each, 0.0) for each in (self.mean, self.additive, self.rates))
        return HypercubePrior(mean, additive, rates, torch.where(players.unsqueeze(-2), self.directions, 0.0))
