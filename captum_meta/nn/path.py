"""The explainer of path integrals (Integrated Gradients): a quadrature whose error is read off the model's own values.

The nodes cut the path into intervals. On each, the interpolating polynomial of the gradients gives every player a share of
the change of f, and f itself, known at the nodes for nothing, tells by how much these shares are wrong together.

Whose error is it? The sum of all gradients is a curve whose integral is known, and it serves as control variate: what a
player's gradients share with that curve along the path, it shares of the error, and the rest goes to those whose gradients
vary. That is the answer before any training; the network bends it, for at a kink the error belongs to the players whose
gradient jumps. Every correction is proportional to the errors found, so it vanishes as Gauss-Legendre converges.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_meta.estimators import gauss_legendre, interval_weights
from captum_meta.nn.blocks import PoolingBlock, masked_mean
from captum_meta.nn.explainer import Explainer, Prior, gap_shares, row_scale
from captum_meta.types import Evidence

_MAX_INTERPOLATED = 16
_PLAYER_NUMBERS, _INTERVAL_NUMBERS = 18, 7
_DEGREES = 3


class PathExplainer(Explainer):
    """Gradients at quadrature nodes and the values of f there, to Integrated Gradients.

    Args:
        width: width of the hidden layers.
        depth: number of pooling blocks; each pools over players, then over the path.
    """

    kind = "path"

    def __init__(self, width: int = 32, depth: int = 2) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.encode = nn.Sequential(
            nn.Linear(_PLAYER_NUMBERS + _INTERVAL_NUMBERS, width), nn.GELU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList([PoolingBlock(width) for _ in range(depth)])
        self.along = nn.ModuleList([PoolingBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 9)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def arguments(self) -> dict[str, object]:
        return {"width": self.width, "depth": self.depth}

    def prior(self, evidence: Evidence) -> Prior:
        scale = row_scale(evidence)
        effects = torch.where(evidence.measured, evidence.effects / scale[..., None, None], 0.0)
        pieces = _Pieces.of(effects, evidence, scale)
        hidden = self.encode(pieces.numbers(evidence))
        everywhere = torch.ones_like(hidden[..., 0, :, 0], dtype=torch.bool)
        for across, along in zip(self.blocks, self.along, strict=True):
            hidden = across(hidden, evidence.players.unsqueeze(-2))
            hidden = along(hidden.transpose(-2, -3), everywhere.unsqueeze(-2).expand(hidden.shape[:-1]).mT).transpose(-2, -3)
        features = self.norm(hidden)
        common, finer, finest, jump, level, wild, varied, changing, large = self.head(features).unbind(-1)
        size, change = pieces.sizes()
        shares = pieces.common
        steer = (
            (1 + 2 * torch.tanh(common)) * shares[0] + 2 * torch.tanh(finer) * shares[1] + 2 * torch.tanh(finest) * shares[2]
        )
        steer = steer + 2 * torch.tanh(jump) * pieces.jump_share + 2 * torch.tanh(level) * pieces.level_share
        local = pieces.errors.unsqueeze(-1) * steer + pieces.trouble.unsqueeze(-1) * (change + size) * torch.tanh(wild)
        left = pieces.errors - local.sum(-1)
        weights = pieces.variation * varied.exp() + 0.1 * change * changing.exp() + 0.1 * size * large.exp()
        weights = gap_shares(weights + 1e-9 * (size > 0), evidence.players.unsqueeze(-2))
        corrected = pieces.parts + local + weights * left.unsqueeze(-1)
        magnitude = masked_mean(effects.abs(), evidence.measured)
        return Prior(
            attributions=torch.where(evidence.players, corrected.sum(-2), 0.0) * scale.unsqueeze(-1),
            spread=gap_shares(magnitude, evidence.players),
            scale=scale,
            features=features.mean(-3) * (magnitude * scale.unsqueeze(-1)).unsqueeze(-1),
        )


class _Pieces:
    """The path cut at the nodes: ``J = G + 1`` intervals, all in units of the row's scale.

    Attributes:
        left, right: ``(*batch, J, M)``, gradient effects at the ends (of the nearest node, at 0 and 1).
        parts: ``(*batch, J, M)``, integrals of the interpolating polynomial.
        errors: ``(*batch, J)``, change of f not explained by ``parts``.
        trouble: ``(*batch, J)``, mean absolute error of the row: how far the quadrature can be trusted.
        widths: ``(J,)``.
        jump_share, level_share: ``(*batch, J, M)``, how much the gradient changes on the interval, and what it is there.
        common: three of ``(*batch, 1, M)``, covariance along the path of the player's gradients with the sum of all: of
            all but their mean, their line, their parabola.
        likeness: three of ``(*batch, 1, M)``, the correlations of the same.
        variation: ``(*batch, 1, M)``, standard deviation of the gradients along the path.

    Shares are divided by their absolute sum over the players.
    """

    def __init__(self, effects: Tensor, curve: Tensor, total: Tensor, points: Tensor) -> None:
        by_node = effects.mT
        self.left = torch.cat([by_node[..., :1, :], by_node], dim=-2)
        self.right = torch.cat([by_node, by_node[..., -1:, :]], dim=-2)
        edges = torch.cat([points.new_zeros(1), points, points.new_ones(1)])
        self.widths = edges.diff()
        intervals = _integrate(points)
        self.parts = intervals.to(effects) @ by_node
        values = torch.cat([torch.zeros_like(total).unsqueeze(-1), curve, total.unsqueeze(-1)], dim=-1)
        self.errors = values.diff(dim=-1) - self.parts.sum(-1)
        self.trouble = self.errors.abs().mean(-1, keepdim=True).expand_as(self.errors)
        self.jump_share = _shares(self.right - self.left)
        self.level_share = _shares((self.left + self.right) / 2)
        self.common, self.likeness = [], []
        for without in _without_polynomials(points, intervals.sum(0)):
            varying = without.to(effects) @ by_node
            together = varying.sum(-1, keepdim=True)
            covariance = (varying * together).sum(-2, keepdim=True)
            lengths = [part.square().sum(-2, keepdim=True).sqrt() for part in (varying, together)]
            self.common.append(_shares(covariance))
            self.likeness.append(covariance / (lengths[0] * lengths[1]).clamp(min=1e-12))
            if len(self.common) == 1:
                self.variation = _shares(lengths[0])

    @classmethod
    def of(cls, effects: Tensor, evidence: Evidence, scale: Tensor) -> _Pieces:
        points = evidence.points.reshape(-1, evidence.points.shape[-1])[0].double()
        return cls(effects, evidence.curve / scale.unsqueeze(-1), evidence.total / scale, points)

    def sizes(self) -> tuple[Tensor, Tensor]:
        """Shares of each player in the absolute gradient, and in its absolute change, on each interval."""
        change = self.jump_share.abs()
        return self.level_share.abs(), torch.where(change.sum(-1, keepdim=True) > 0, change, self.level_share.abs())

    def numbers(self, evidence: Evidence) -> Tensor:
        """Scale-free inputs of the network, ``(*batch, J, M, numbers)``."""
        count = evidence.n_players[..., None, None].to(self.parts)
        relative = self.errors / self.errors.abs().sum(-1, keepdim=True).clamp(min=1e-12)
        bend = _shares(self.parts / self.widths.to(self.parts).unsqueeze(-1) - (self.left + self.right) / 2)
        player = [
            self.left.clamp(-5, 5),
            self.right.clamp(-5, 5),
            torch.asinh(self.left),
            torch.asinh(self.right - self.left),
            torch.asinh(self.parts / self.widths.to(self.parts).unsqueeze(-1)),
            torch.asinh((self.right - self.left) * relative.unsqueeze(-1) * 3),
            *(
                torch.asinh(share * count)
                for share in (self.jump_share, self.level_share, bend, *self.common, self.variation)
            ),
            self.level_share * count.sqrt(),
            self.jump_share * count.sqrt(),
            *self.likeness,
        ]
        interval = [
            relative,
            (self.trouble + 1e-8).log() / 5,
            torch.asinh(self.errors * 10),
            self.jump_share.sum(-1),
            self.level_share.sum(-1),
            (self.widths.to(self.parts) * len(self.widths)).expand_as(self.errors),
            torch.asinh(evidence.total / row_scale(evidence)).unsqueeze(-1).expand_as(self.errors),
        ]
        players = torch.stack([number.expand_as(self.parts) for number in player], dim=-1)
        rows = torch.stack(interval, dim=-1).unsqueeze(-2).expand(*self.parts.shape, -1)
        return torch.cat([players, rows], dim=-1)


def _shares(values: Tensor) -> Tensor:
    """Values over their absolute sum over the players."""
    return values / values.abs().sum(-1, keepdim=True).clamp(min=1e-12)


def _without_polynomials(points: Tensor, weights: Tensor) -> list[Tensor]:
    """What is left of values at ``points`` without their mean, line and parabola, in the quadrature's norm: ``(G, G)`` each.

    Zero where the points are too few to have anything left.
    """
    root = weights.clamp(min=0).sqrt()
    powers = torch.stack([(2 * points - 1) ** degree for degree in range(_DEGREES)], dim=-1)
    kept = []
    for degree in range(_DEGREES):
        basis = torch.linalg.qr(root.unsqueeze(-1) * powers[:, : degree + 1])[0]
        left = torch.diag(root) - basis @ (basis.mT * root)
        kept.append(left if len(points) > degree + 1 else torch.zeros_like(left))
    return kept


def _integrate(points: Tensor) -> Tensor:
    """Each interval's integral from the values at ``points``, ``(G + 1, G)``.

    At a few Gauss-Legendre nodes, of the interpolating polynomial; elsewhere of steps whose edges part the path in the
    quadrature's weights, which lie between the nodes. Summed over the intervals both are the quadrature itself.
    """
    count = len(points)
    nodes, weights = gauss_legendre(count)
    is_gauss = bool(torch.allclose(nodes.to(points), points, atol=1e-5))
    if is_gauss and count <= _MAX_INTERPOLATED:
        return interval_weights(points)
    steps = weights.to(points) if is_gauss else torch.full_like(points, 1 / count)
    edges = torch.cat([points.new_zeros(1), steps.cumsum(0)])
    cuts = torch.cat([points.new_zeros(1), points, points.new_ones(1)])
    overlap = torch.minimum(cuts[1:, None], edges[None, 1:]) - torch.maximum(cuts[:-1, None], edges[None, :-1])
    return overlap.clamp(min=0)
