"""The explainer of path integrals (Integrated Gradients): a quadrature whose error is read off the model's own values.

The nodes cut the path into intervals. On each, the interpolating polynomial of the gradients gives every player a share of
the change of f, and f itself, known at the nodes for nothing, tells by how much these shares are wrong together.

Whose error is it? The sum of all gradients is a curve whose integral is known, and it serves as control variate: what a
player's gradients share with that curve along the path, it shares of the error, and the rest goes to those whose gradients
vary. That is the answer before any training; the network bends it, for at a kink the error belongs to the players whose
gradient jumps. Every correction is proportional to the errors found, so it vanishes as the quadrature converges.

Errors are shared out among the players in two ways, whose weights the network gives. The first goes interval by interval,
which suits kinks. But on smooth paths the errors on the intervals cancel in the quadrature, and their shares do not. So the
second way shares out the gap of the whole path, which falls with twice the order of the intervals' errors.

Tried without gain: each row's own quadrature weights from Gaussian processes over the path (Matern kernels on the path,
on f along it, or times its slope, chosen by the errors of their predicted intervals): worse than the covariance alone.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from captum_meta.estimators import interval_weights
from captum_meta.nn.blocks import PoolingBlock, asinh, masked_mean
from captum_meta.nn.explainer import Explainer, Prior, gap_shares, row_scale
from captum_meta.nn.path_polynomials import DEGREES, SHAPES, PathPolynomials
from captum_meta.nn.path_rows import RowPathExplainer
from captum_meta.types import Evidence

_PLAYER_NUMBERS, _INTERVAL_NUMBERS = 22, 8
_LEAST = 1e-9
_FEWEST_GRADIENTS = 5
"""Gradients from which weights for a whole row are as good as those for each player, on synthetic validation."""
_MANY_PLAYERS = 1024
"""Players from which they are with fewer gradients, too: at 6,912 elements errors at 2 to 4 gradients are equal."""
_MAX_PLACES_OF_ROWS = 2**20
_UNITS = 16
"""Numbers below this many units in the last place of a row's level count as rounding."""


class PathExplainer(Explainer):
    """Gradients at quadrature nodes and the values of f there, to Integrated Gradients.

    Args:
        width: width of the hidden layers.
        depth: number of pooling blocks; each pools over players, then over the path.
        rows: whether there is a :class:`~captum_meta.nn.path_rows.RowPathExplainer` beside it, which once trained
            (``python -m captum_meta.training.path_rows``) answers in its place from five gradients on, or 1,024 players.
    """

    kind = "path"
    reading = ("head.*", "whole.*")
    batched_by_hand = True

    def __init__(self, width: int = 32, depth: int = 2, rows: bool = False) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.rows = RowPathExplainer(width, depth) if rows else None
        self.encode = nn.Sequential(
            nn.Linear(_PLAYER_NUMBERS + _INTERVAL_NUMBERS, width), nn.GELU(), nn.Linear(width, width)
        )
        self.blocks = nn.ModuleList([PoolingBlock(width) for _ in range(depth)])
        self.along = nn.ModuleList([PoolingBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, 9)
        self.whole = nn.Linear(width, 7 + SHAPES)
        for layer in (self.head, self.whole):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def arguments(self) -> dict[str, object]:
        return {"width": self.width, "depth": self.depth, **({} if self.rows is None else {"rows": True})}

    def trained_prior(self, evidence: Evidence, features: bool = True) -> Prior:
        rows = self._rows_for(evidence)
        return self.prior(evidence) if rows is None else rows.trained_prior(evidence, features)

    def elements_at_once(self, evidence: Evidence) -> int:
        return super().elements_at_once(evidence) if self._rows_for(evidence) is None else _MAX_PLACES_OF_ROWS

    def _rows_for(self, evidence: Evidence) -> RowPathExplainer | None:
        """The explainer of whole rows, where it replaces the network that reads each player."""
        few = evidence.points.shape[-1] < _FEWEST_GRADIENTS and evidence.effects.shape[-2] < _MANY_PLAYERS
        return None if self.training or few else self.rows

    def hidden(self, evidence: Evidence) -> Tensor:
        return self._hidden(evidence, _Pieces.of(*_scaled(evidence), evidence))

    def _hidden(self, evidence: Evidence, pieces: _Pieces) -> Tensor:
        hidden = self.encode(pieces.numbers(evidence))
        for across, along in zip(self.blocks, self.along, strict=True):
            hidden = across(hidden, evidence.players.unsqueeze(-2))
            hidden = along(hidden.transpose(-2, -3)).transpose(-2, -3)
        normed: Tensor = self.norm(hidden)
        return normed

    def prior(self, evidence: Evidence, hidden: Tensor | None = None) -> Prior:
        effects, scale = _scaled(evidence)
        pieces = _Pieces.of(effects, scale, evidence)
        features = self._hidden(evidence, pieces) if hidden is None else hidden
        pooled = features.mean(-3)
        apart = self._apart(pieces, _columns(self.head(features)), evidence)
        whole = _columns(self.whole(pooled))
        together = self._together(pieces, whole[1:], evidence)
        gate = masked_mean(whole[0], evidence.players).sigmoid().unsqueeze(-1)
        corrected = pieces.parts.sum(-2) + gate * apart + (1 - gate) * together
        magnitude = masked_mean(effects.abs(), evidence.measured)
        return Prior(
            attributions=torch.where(evidence.players, corrected, 0.0) * scale.unsqueeze(-1),
            spread=gap_shares(magnitude, evidence.players),
            scale=scale,
            features=pooled * (magnitude * scale.unsqueeze(-1)).unsqueeze(-1),
        ).to(dtype=evidence.effects.dtype)  # half precision is computed in single in places

    def _apart(self, pieces: _Pieces, columns: Tensor, evidence: Evidence) -> Tensor:
        """Corrections ``(*batch, M)`` that share out the error of each interval on its own: right where f has kinks."""
        bounded, free = columns[: DEGREES + 3].tanh(), columns[DEGREES + 3 :].exp()
        of_common, (jump, level, wild), (varied, changing, large) = bounded[:DEGREES], bounded[DEGREES:], free
        size, change = pieces.size, pieces.change
        steer = (of_common * pieces.common).sum(0) + jump * pieces.jump_share + level * pieces.level_share
        steer = pieces.common[0] + 2 * steer
        local = pieces.errors.unsqueeze(-1) * steer + pieces.trouble.unsqueeze(-1) * (change + size) * wild
        left = pieces.errors - local.sum(-1)
        weights = pieces.variation * varied + 0.1 * change * changing + 0.1 * size * large
        weights = gap_shares(weights + _LEAST * pieces.alive.unsqueeze(-2), evidence.players.unsqueeze(-2))
        return (local + weights * left.unsqueeze(-1)).sum(-2)

    def _together(self, pieces: _Pieces, columns: Tensor, evidence: Evidence) -> Tensor:
        """Corrections ``(*batch, M)`` that share out the gap of the whole path, which falls far faster on smooth paths."""
        of_common, free, of_shapes = columns.split([DEGREES, 3, SHAPES])
        common, (varied, large, even) = pieces.common.squeeze(-2), free.exp()
        steer = common[0] + 2 * ((of_common.tanh() * common).sum(0) + (of_shapes.tanh() * pieces.shapes).sum(0))
        gap = pieces.errors.sum(-1, keepdim=True)
        size = pieces.size.mean(-2)
        alive = pieces.alive / evidence.n_players.unsqueeze(-1).clamp(min=1)
        weights = pieces.variation.squeeze(-2) * varied + 0.1 * size * large + 0.1 * alive * even
        weights = gap_shares(weights, evidence.players)
        return gap * (steer + weights * (1 - steer.sum(-1, keepdim=True)))


def _scaled(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """Effects in units of the row's scale, 0 where not measured, and the scale."""
    scale = row_scale(evidence)
    return torch.where(evidence.measured, evidence.effects / scale[..., None, None], 0.0), scale


class _Pieces:
    """The path cut at the nodes: ``J = G + 1`` intervals, all in units of the row's scale.

    Attributes:
        left, right: ``(*batch, J, M)``, gradient effects at the ends (of the nearest node, at 0 and 1).
        parts: ``(*batch, J, M)``, integrals of the interpolating polynomial.
        errors: ``(*batch, J)``, change of f not explained by ``parts``.
        trouble: ``(*batch, J)``, mean absolute error of the row: how far the quadrature can be trusted.
        widths: ``(*batch, J)``.
        jumps, levels: ``(*batch, J, M)``, how much the gradient changes on the interval, and what it is there.
        jump_share, level_share, bend: ``(*batch, J, M)``, shares of these, and of how far the polynomial leaves the levels.
        size, change: ``(*batch, J, M)``, shares of each player in the absolute gradient, and in its absolute change.
        shares: ``(*batch, 8, M)``, all of the following, side by side.
        common: three of ``(*batch, 1, M)``, covariance along the path of the player's gradients with the sum of all: of
            all but their mean, their line, their parabola.
        variation: ``(*batch, 1, M)``, standard deviation of the gradients along the path.
        shapes: four of ``(*batch, M)``, shares of the coefficients of the gradients' first Legendre polynomials on the path.
        likeness: ``(*batch, 3, M)``, the correlations that belong to the covariances.

        alive: ``(*batch, M)`` bool, players with any gradient.
        rounding: ``(*batch, 1, 1)``, sums over the players below which there is nothing but rounding.
        floor: the same of what is small beside what it was computed from, a difference or a remainder.

    Shares are divided by their absolute sum over the players, unless that is as small as its rounding (:func:`_shares`).
    """

    def __init__(self, effects: Tensor, curve: Tensor, total: Tensor, points: Tensor) -> None:
        by_node = effects.mT
        self.alive = (effects != 0).any(-1)
        digits = torch.finfo(effects.dtype).eps ** 0.5
        self.floor = floor = digits * by_node.abs().sum(-1).mean(-1)[..., None, None]
        self.rounding = _UNITS * digits * floor
        self.left = torch.cat([by_node[..., :1, :], by_node], dim=-2)
        self.right = torch.cat([by_node, by_node[..., -1:, :]], dim=-2)
        intervals = interval_weights(points)
        weights = intervals.sum(-2)
        start = torch.zeros_like(points[..., :1])
        self.widths = torch.cat([start, points, start + 1], dim=-1).diff(dim=-1).to(effects)
        self.parts = intervals.to(effects) @ by_node
        values = torch.cat([torch.zeros_like(total).unsqueeze(-1), curve, total.unsqueeze(-1)], dim=-1)
        self.errors = values.diff(dim=-1) - self.parts.sum(-1)
        self.trouble = self.errors.abs().mean(-1, keepdim=True).expand_as(self.errors)
        near = digits * (self.left.abs() + self.right.abs()).sum(-1, keepdim=True) + self.rounding
        self.jumps, self.levels = self.right - self.left, (self.left + self.right) / 2
        bent = self.parts / self.widths.unsqueeze(-1) - self.levels
        rounding = torch.stack([near, self.rounding.expand_as(near), floor.expand_as(near)])
        self.jump_share, self.level_share, self.bend = _shares(torch.stack([self.jumps, self.levels, bent]), rounding)
        self.size, change = self.level_share.abs(), self.jump_share.abs()
        self.change = change + (1 - change.sum(-1, keepdim=True)) * self.size
        self._share(PathPolynomials.at(points, weights), by_node)

    def _share(self, polynomials: PathPolynomials, by_node: Tensor) -> None:
        floor, coefficients = self.floor, polynomials.coefficient_rows().to(by_node) @ by_node
        varying = (polynomials.without().flatten(-3, -2).to(by_node) @ by_node).unflatten(-2, (DEGREES, -1))
        together = varying.sum(-1, keepdim=True)
        covariance = (varying * together).sum(-2)
        length, whole = (part.square().sum(-2).sqrt() for part in (varying, together))
        shared = torch.cat([covariance, length[..., :1, :], coefficients], dim=-2)
        rounding = torch.cat([floor.square()] * DEGREES + [floor] * (1 + SHAPES), dim=-2)
        self.shares = _shares(shared, rounding)
        each = self.shares.movedim(-2, 0)
        self.common, self.variation = each[:DEGREES].unsqueeze(-2), each[DEGREES].unsqueeze(-2)
        self.shapes = each[DEGREES + 1 :]
        self.likeness = _over(covariance, length * whole, floor * (length + whole + floor))

    @classmethod
    def of(cls, effects: Tensor, scale: Tensor, evidence: Evidence) -> _Pieces:
        return cls(effects, evidence.curve / scale.unsqueeze(-1), evidence.total / scale, evidence.points.double())

    def numbers(self, evidence: Evidence) -> Tensor:
        """Scale-free inputs of the network, ``(*batch, J, M, numbers)``."""
        count = evidence.n_players[..., None, None].to(self.parts)
        relative, root = _shares(self.errors, self.rounding.squeeze(-1)), count.sqrt()
        ends = torch.stack([self.left, self.right], dim=-1).clamp(-5, 5)
        rates, missed = self.parts / self.widths.unsqueeze(-1), self.jumps * relative.unsqueeze(-1) * 3
        shares = (self.jump_share * count, self.level_share * count, self.bend * count)
        steep = asinh(torch.stack([self.left, self.jumps, rates, missed, *shares], dim=-1))
        of_rows = torch.cat([asinh(self.shares * count), self.likeness], dim=-2).mT.unsqueeze(-3)
        shared, likeness = of_rows.expand(*self.parts.shape, -1).split([1 + DEGREES + SHAPES, DEGREES], dim=-1)
        few = torch.stack([self.level_share * root, self.jump_share * root], dim=-1)
        interval = [
            relative,
            (self.trouble + torch.finfo(self.trouble.dtype).eps * _UNITS).log() / 5,
            (relative.sum(-1, keepdim=True).abs() + 1e-4).log().expand_as(self.errors) / 5,
            torch.asinh(self.errors * 10),
            self.jump_share.sum(-1),
            self.level_share.sum(-1),
            self.widths * self.widths.shape[-1],
            torch.asinh(evidence.total / row_scale(evidence)).unsqueeze(-1).expand_as(self.errors),
        ]
        rows = torch.stack(interval, dim=-1).unsqueeze(-2).expand(*self.parts.shape, -1)
        return torch.cat([ends, steep, shared, few, likeness, rows], dim=-1)


def _columns(values: Tensor) -> Tensor:
    """The last dimension first, as elementwise functions are fast where numbers lie side by side."""
    return values.movedim(-1, 0).contiguous()


def _shares(values: Tensor, rounding: Tensor) -> Tensor:
    """Values over their absolute sum over the last dimension; near 0 where that is below ``rounding``."""
    return _over(values, values.abs().sum(-1, keepdim=True), rounding)


def _over(values: Tensor, size: Tensor, rounding: Tensor) -> Tensor:
    r"""Ratios :math:`v s / (s^2 + r^2)`: v / s where the size s is real, and 0 where values and size are rounding alone.

    With a floor under s alone, rounding of :math:`10^{-16}` came out as shares of :math:`10^{-4}` of errors that are real.
    """
    return values * size / (size.square() + rounding.square()).clamp(min=torch.finfo(values.dtype).tiny)
