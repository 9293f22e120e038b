"""Coordinates of a row's players, and the row's distance from the support rows.

A regression does not extrapolate: its random Fourier and linear features do not fade far from the support rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.nn import Prior
from captum_meta.nn.encoders import Statistics, five_effects, standardised
from captum_meta.types import Evidence, Record

COORDINATES = 8
_SAME = 1e-3
"""Rows at a smaller mean squared distance count as equal."""


def coordinates(prior: Prior, evidence: Evidence, statistics: Statistics) -> Float[Tensor, "*batch M 8"]:
    """Coordinates z of each player, ``(*batch, N, M, 8)``, without units; 0 where unknown."""
    unit = statistics.unit[..., None, None]
    delta = torch.zeros_like(prior.attributions)
    if evidence.inputs is not None:
        both = standardised(evidence.inputs.to(delta), evidence, statistics).clamp(-5, 5)
        delta = (both[..., 0] - both[..., 1]).clamp(-5, 5)
    total = torch.asinh(evidence.total.unsqueeze(-1) / unit).expand_as(delta)
    effects, _ = five_effects(evidence)
    sizes = torch.asinh(3 * torch.cat([prior.attributions.unsqueeze(-1), effects], dim=-1) / unit.unsqueeze(-1))
    return torch.cat([torch.stack([delta, total], dim=-1), sizes], dim=-1)


@dataclass(frozen=True)
class SupportCoordinates(Record):
    """Coordinates of the support rows' players.

    Attributes:
        z: ``(*batch, K, M, 8)``.
        players: ``(*batch, K, M)`` bool.
        spacing: ``(*batch,)``, mean squared distance of a row from its nearest neighbour; infinite for a single row.
    """

    z: Float[Tensor, "*batch K M A"]
    players: Bool[Tensor, "*batch K M"]
    spacing: Float[Tensor, "*batch"]

    @classmethod
    def of(cls, z: Float[Tensor, "*batch K M A"], players: Bool[Tensor, "*batch K M"]) -> SupportCoordinates:
        """Of support rows with coordinates z."""
        return cls(z.detach(), players, _nearest_fellow(z.detach(), players).mean(-1))

    def isolation(self) -> Float[Tensor, "*batch K"]:
        """Distance of each support row from its nearest neighbour, in excess of the mean over rows, ``(*batch, K)``."""
        return self._beyond(_nearest_fellow(self.z, self.players))

    def nearness(
        self, z: Float[Tensor, "*batch N M A"], players: Bool[Tensor, "*batch N M"], decay: Tensor
    ) -> Float[Tensor, "*batch N 1"]:
        r"""Factor by which a row's correction fades, ``(*batch, N, 1)``.

        .. math:: e^{-\lambda \max(0,\, d / d_0 - 1)}

        with d the squared distance in z from the nearest support row, mean over players, :math:`d_0` the mean of the same
        over the support rows, each to the others, and lambda the ``decay`` ``(*batch,)``.
        """
        both = min(z.shape[-2], self.z.shape[-2])
        mine, theirs = players[..., :both], self.players[..., :both]
        distances = _distances(z.detach()[..., :both, :], self.z[..., :both, :], mine, theirs)
        return torch.exp(-decay[..., None] * self._beyond(distances.amin(-1))).unsqueeze(-1)

    def _beyond(self, nearest: Tensor) -> Tensor:
        spacing = self.spacing.unsqueeze(-1)
        return torch.where(spacing.isfinite(), (nearest / (spacing + _SAME) - 1).clamp(min=0), 0.0)


def _nearest_fellow(z: Float[Tensor, "*batch K M A"], players: Bool[Tensor, "*batch K M"]) -> Float[Tensor, "*batch K"]:
    distances = _distances(z, z, players, players)
    itself = torch.eye(distances.shape[-1], dtype=torch.bool, device=z.device)
    return distances.masked_fill(itself, torch.inf).amin(-1)


def _distances(
    left: Float[Tensor, "*batch N M A"],
    right: Float[Tensor, "*batch K M A"],
    players: Bool[Tensor, "*batch N M"],
    others: Bool[Tensor, "*batch K M"],
) -> Float[Tensor, "*batch N K"]:
    """Squared distances in z, mean over the players of both rows: ``(*batch, N, K)``; infinite where there are none."""
    mine, theirs = players.to(left), others.to(left)
    squares = (left.square().sum(-1) * mine) @ theirs.mT + mine @ (right.square().sum(-1) * theirs).mT
    products = (left * mine.unsqueeze(-1)).flatten(-2) @ (right * theirs.unsqueeze(-1)).flatten(-2).mT
    count = mine @ theirs.mT
    return torch.where(count > 0, (squares - 2 * products).clamp(min=0) / count.clamp(min=1), torch.inf)
