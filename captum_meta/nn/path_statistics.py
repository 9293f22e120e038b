"""Statistics of a path's gradients, summed over the players: the input of a network without players.

The nodes cut the path into ``J = G + 1`` intervals, on each of which gradients jump from one node's to the next one's, but
for the outermost two. All is in units of the row's scale. Shares are divided by their absolute sum over the players, unless
that is as small as its rounding (:func:`over`).
"""

from __future__ import annotations

from math import log

import torch
from torch import Tensor
from torch.nn import functional

from captum_meta.estimators import interval_weights
from captum_meta.nn.explainer import scale_of
from captum_meta.nn.path_polynomials import DEGREES, SHAPES, PathPolynomials
from captum_meta.types import Evidence

SHARES = DEGREES + SHAPES
INTERVAL_NUMBERS, ROW_NUMBERS = 13, SHARES + 4
_UNITS = 16
"""Numbers below this many units in the last place of a row's level count as rounding."""
_RIDGE = 0.01
_LEAST, _LEAST_SQUARE = 1e-30, 1e-12
_STEEP, _LEAST_GAP, _LEAST_CHANGE = 30.0, 3e-3, 1e-2
"""Bounds of gradients: what a number is that may be rounding must not change what is made of errors that are real."""


class PathStatistics:
    """Of rows of ``M`` players with ``G`` gradients.

    Attributes:
        scale: ``(*batch,)``, the row's.
        effects: ``(*batch, G, M)``, in units of the output.
        weights: ``(*batch, 1, G)``, of the quadrature.
        errors: ``(*batch, J)``, change of f not explained by the quadrature.
        sizes: ``(*batch, G - 1, M)``, of the jumps of the effects on the intervals between nodes, in units of the output.
        size, jump_sums, together: ``(*batch, J)``, sums of the sizes and of the jumps, and the latter over the former; 0 on
            the outermost intervals.
        floor: ``(*batch, 1)``, sums over the players that may be rounding, of differences.
        regression: ``(*batch, J)``, weights of the jumps in the regression of a gap of 1 on them
            (:class:`~captum_meta.estimators.PathIntervals`), and what they add up to, ``(*batch, 1)``.
        share_rows: ``(*batch, 7, G)``, weights of the effects in their covariance along the path with the sum of all (of all
            but their mean, their line, their parabola), and in the coefficients of the first Legendre polynomials.
        share_units, share_sums: ``(*batch, 7)``, one over the absolute sums of these over the players, and their sums in
            these units.
    """

    def __init__(self, evidence: Evidence) -> None:
        effects, points = evidence.effects.mT, evidence.points.double()
        count = evidence.measured[..., 0].sum(-1) * points.shape[-1]
        self.scale = scale_of(effects.square().sum((-2, -1)), count, evidence)
        self.effects, self.unit = effects, 1 / self.scale.unsqueeze(-1)
        self.total, curve = evidence.total / self.scale, evidence.curve * self.unit
        digits = torch.finfo(effects.dtype).eps ** 0.5
        self.sums, levels = effects.sum(-1) * self.unit, effects.abs().sum(-1).mean(-1, keepdim=True)
        self.floor = digits * levels * self.unit
        self.rounding = _UNITS * digits * self.floor
        intervals = interval_weights(points)
        self.weights = intervals.sum(-2, keepdim=True).to(effects)
        start = torch.zeros_like(self.unit)
        values = torch.cat([start, curve, self.total.unsqueeze(-1)], dim=-1)
        self.errors = values.diff(dim=-1) - (intervals.to(effects) @ self.sums.unsqueeze(-1)).squeeze(-1)
        self.widths = torch.cat([start, points.to(effects), start + 1], dim=-1).diff(dim=-1)
        jumps = effects.diff(dim=-2)
        self.sizes = jumps.abs()
        self.size = functional.pad(self.sizes.sum(-1) * self.unit, (1, 1))
        self.jump_sums = functional.pad(self.sums.diff(dim=-1), (1, 1))
        unit = self.unit.unsqueeze(-1)
        self.gram = functional.pad(jumps @ jumps.mT * unit * unit, (1, 1, 1, 1))
        polynomials = PathPolynomials.at(points, intervals.sum(-2))
        rows = [polynomials.covariance_rows(self.sums.double()), polynomials.coefficient_rows()]
        self.share_rows = torch.cat(rows, dim=-2).to(self.sums)
        self._divide()

    def _divide(self) -> None:
        sums, energy = self.jump_sums, self.widths.square()
        squares = self.gram.diagonal(dim1=-2, dim2=-1)
        own = (energy * (sums.square() + _RIDGE * squares)).sum(-1, keepdim=True)
        shares = (self.share_rows @ self.effects).abs_().sum(-1) * self.unit
        sizes = torch.cat([self.size, self.size.sum(-1, keepdim=True), own, shares], dim=-1)
        floor, square = self.floor, self.floor.square()
        of_sizes = floor.expand(*sums.shape[:-1], sums.shape[-1] + 1)
        of_own = square * energy.amax(-1, keepdim=True)
        of_shares = square.expand(*sums.shape[:-1], DEGREES), floor.expand(*sums.shape[:-1], SHAPES)
        units = inverse(sizes, torch.cat([of_sizes, of_own, *of_shares], dim=-1))
        self.size_unit, self.whole_unit, own, self.share_units = units.split([self.size.shape[-1], 1, 1, SHARES], dim=-1)
        self.together = sums * self.size_unit
        self.regression = energy * sums * own
        self.regression_sum = (self.regression * sums).sum(-1, keepdim=True)
        self.share_sums = (self.share_rows @ self.sums.unsqueeze(-1)).squeeze(-1) * self.share_units

    def numbers(self) -> Tensor:
        """Scale-free inputs of a network, ``(*batch, J, numbers)``: of the interval, of those beside it, of the row."""
        errors, tiny = self.errors, torch.finfo(self.errors.dtype).eps * _UNITS
        trouble = errors.abs().sum(-1, keepdim=True)
        size, floor, varies = self.size, self.floor, self.size.sum(-1, keepdim=True)
        lengths = self.gram.diagonal(dim1=-2, dim2=-1).clamp(min=0).sqrt()
        next_one = functional.pad(lengths[..., 1:], (0, 1))
        products = functional.pad(self.gram.diagonal(offset=1, dim1=-2, dim2=-1), (0, 1))
        wide, of_wide = size * self.widths, floor * self.widths
        sizes = torch.cat([trouble, lengths * next_one, wide], dim=-1)
        inverses = inverse(sizes, torch.cat([self.rounding, floor * (lengths + next_one + floor), of_wide], dim=-1))
        units = inverses.split([1, errors.shape[-1], errors.shape[-1]], dim=-1)
        relative, alike, missed = errors * units[0], products * units[1], errors * units[2]
        real, share, length = size * self.size_unit, size * self.whole_unit, lengths * self.size_unit
        left, right = torch.cat([self.sums[..., :1], self.sums], -1), torch.cat([self.sums, self.sums[..., -1:]], -1)
        steep = torch.stack([_STEEP * relative.abs(), _STEEP * share, 10 * errors, right - left, (left + right) / 2])
        of_error, of_share, error, jump, level = steep.asinh()
        own = torch.stack(
            [
                relative,
                of_error / 2,
                error,
                self.together,
                share,
                of_share / 2,
                length,
                alike,
                jump,
                level,
                self.widths * self.widths.shape[-1],
                relative * self.together,
                torch.tanh(missed) * real,
            ],
            dim=-1,
        )
        around = functional.pad(own, (0, 0, 1, 1))
        gap = relative.sum(-1, keepdim=True)
        count = torch.full_like(gap, log(self.widths.shape[-1]) / 3)
        orders = torch.cat([gap.abs() + _LEAST_GAP, trouble + tiny, varies + _LEAST_CHANGE], dim=-1).log() / 5
        row = torch.cat([self.share_sums, orders, count], dim=-1)
        everywhere = row.unsqueeze(-2).expand(*own.shape[:-1], -1)
        return torch.cat([own, around[..., :-2, :], around[..., 2:, :], everywhere], dim=-1)


def inverse(size: Tensor, rounding: Tensor) -> Tensor:
    r"""One over the size s, as :math:`s / (s^2 + r^2)`: near 0 where it is below its rounding r; of any magnitude."""
    unit = torch.maximum(size.abs(), rounding).clamp(min=_LEAST)
    size, rounding = size / unit, rounding / unit
    return size / (size.square() + rounding.square()).clamp(min=_LEAST_SQUARE) / unit
