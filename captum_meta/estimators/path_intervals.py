r"""Path integrals from gradients at some points: the answer, its error, and where more gradients are needed.

The points cut the path into intervals. On each, f gives the error of the trapezium for the sum over the players:

.. math:: e_j = f(t_{j+1}) - f(t_j) - h_j \frac{s_j + s_{j+1}}{2}, \qquad s = \sum_i g_i

Where gradients jump at places unknown (ReLU nets), their path is like a Brownian motion with the jumps :math:`J_j` seen:
the trapezium is the best guess, and its error is :math:`h_j^2 |J_j|^2 / 12` in the mean. Where it is smooth, slopes of the
gradients improve it (Hermite's rule). The :math:`e_j` of the two rules say which row is which. What the gap
:math:`\sum_j e_j` tells about the single players is its regression on their jumps.

Everything is a weight for each gradient, so that a player that is cut in two gets what its parts get.

Tried without gain: exact places of kinks where there is one on an interval (gradients of small nets have several), local
cubics, a regression for each part of the path, other nodes for the first round.
"""

from __future__ import annotations

import math

import numpy as np

from captum_meta.estimators.path_sample import Floats, Indices, PathSample

_CAPTUM_STEPS = 50
_RIDGE = 0.01
_MOST = 1e4
_TINY = 1e-300
_UNSEEN = 1e-9
"""Least size of jumps, as a part of the gradients."""
_BEYOND = 0.5
"""Part of what is missed of f's changes that lies before the first point and behind the last."""
_ATTEMPTS = 8


class PathIntervals:
    """The intervals of a sample's points, ``I = P + N`` of them, and estimates from them.

    Attributes:
        sample: the points.
        rows, left, right, widths: ``(I,)``, row and ends of each interval.
        changes: ``(I,)``, of f.
        first, second: ``(I,)``, the points at its ends, or nearest to them.
        several: ``(N,)``, squared error of all players for a squared error of their sum.
        errors: ``(I,)``, squared errors to be expected of the intervals' integrals, summed over the players.
        weights: ``(P,)``, of the effects, which add up to attributions.
        common: ``(P,)``, weights that share out a gap of 1 between the sum and the change of f.
        error: ``(N,)``, squared error to be expected of the attributions, in units of the output.
        captum: ``(N,)``, the same of Captum's 50 Gauss-Legendre points.
    """

    def __init__(self, sample: PathSample) -> None:
        self.sample = sample
        self._cut()
        jumps = sample.sums[self.second] - sample.sums[self.first]
        squares = np.zeros(len(jumps))
        squares[self.inner] = sample.squared_jumps(self.first[self.inner], self.second[self.inner])
        rough, smooth, steer = self._two_rules(jumps)
        roughness = self.sum(smooth**2) / np.maximum(self.sum(rough**2), _TINY)
        share = np.clip(1.5 - 2 * roughness, 0, 1)
        self.common, kept = self._common(jumps, squares)
        gap = self.sum(rough + share[self.rows] * (smooth - rough))
        self.weights = self._trapezium() + steer * share[sample.rows] + self.common * gap[sample.rows]
        self.several = self._several(self.sum(self.widths**2 * squares), self.sum(self.widths**2 * jumps**2))
        self.errors = np.nan_to_num(self._expected(squares, rough, smooth, share), nan=0.0, posinf=0.0)
        beyond = self.sum(np.abs(rough) * ~self.inner) > _BEYOND * self.sum(np.abs(rough))
        self.error = self.sum(self.errors) * np.where(beyond, 1.0, kept)  # jumps between points tell nothing of it
        discount = np.where(share > 0, np.minimum(2 * roughness, 1), 1.0)
        self.captum = self.sum(self.errors * self._captum_cells()) * discount

    def sum(self, values: Floats) -> Floats:
        """Values of the intervals ``(I,)``, summed over those of each row, ``(N,)``."""
        return _added(self.rows, values, len(self.sample.ends))

    def _cut(self) -> None:
        sample, counts = self.sample, self.sample.counts
        n_rows, last = len(counts), np.cumsum(counts)
        # Each row's points between its ends 0 and 1: the k-th row's points move by 2 k + 1 places.
        rows = np.repeat(np.arange(n_rows), counts + 2)
        starts = last - counts + 2 * np.arange(n_rows)
        ends = last + 2 * np.arange(n_rows) + 1
        points, values, nearest = np.ones(len(rows)), np.empty(len(rows)), np.empty(len(rows), dtype=np.int64)
        indices = np.arange(len(sample.rows)) + 2 * sample.rows + 1
        points[indices], values[indices], nearest[indices] = sample.points, sample.values, np.arange(len(sample.rows))
        points[starts] = 0.0
        values[starts], values[ends] = sample.ends.T
        nearest[starts], nearest[ends] = last - counts, last - 1
        within = np.flatnonzero(rows[1:] == rows[:-1])
        self.rows, self.left, self.right = rows[within], points[within], points[within + 1]
        self.widths, self.changes = self.right - self.left, values[within + 1] - values[within]
        self.first, self.second = nearest[within], nearest[within + 1]
        self.inner = self.first != self.second
        self.at_start = ~self.inner & (self.left == 0)
        self.at_end = ~self.inner & ~self.at_start

    def _several(self, squares: Floats, sums: Floats) -> Floats:
        """From the jumps' squares, of all players and of their sum; where none is seen, from the gradients themselves.

        A kink between an end of the path and the point next to it shows in f alone.
        """
        trapezium, sample = self._trapezium(), self.sample
        whole = _added(sample.rows, trapezium * sample.sums, len(sums)) ** 2
        squares, sums = squares + _UNSEEN * sample.squares(trapezium), sums + _UNSEEN * whole
        return np.minimum(squares / np.maximum(sums, _TINY), _MOST)

    def _two_rules(self, jumps: Floats) -> tuple[Floats, Floats, Floats]:
        """Changes of f that the two rules miss, ``(I,)``, and what Hermite's rule adds to the weights, ``(P,)``."""
        sums, widths = self.sample.sums, self.widths
        rough = self.changes - widths * (sums[self.first] + sums[self.second]) / 2
        inner = np.flatnonzero(self.inner)
        before, after = (np.full(len(sums), -1) for _ in range(2))
        before[self.second[inner]], after[self.first[inner]] = inner, inner
        before, after = np.where(before < 0, after, before), np.where(after < 0, before, after)
        back, forth = widths[before], widths[after]
        of_before, of_after = forth / (back * (back + forth)), back / (forth * (back + forth))
        first = np.where(self.inner, widths**2 / 12, np.where(self.at_end, widths**2 / 2, 0.0))
        second = np.where(self.inner, -(widths**2) / 12, np.where(self.at_start, -(widths**2) / 2, 0.0))
        slopes = of_before * jumps[before] + of_after * jumps[after]
        smooth = rough - first * slopes[self.first] - second * slopes[self.second]
        by_slope = _added(self.first, first, len(sums)) + _added(self.second, second, len(sums))
        by_jump = _added(before, by_slope * of_before, len(widths))
        by_jump += _added(after, by_slope * of_after, len(widths))
        rough, smooth = (self.sample.certain(missed, self.rows) for missed in (rough, smooth))
        return rough, smooth, self._of_jumps(np.where(self.inner, by_jump, 0.0))

    def _common(self, jumps: Floats, squares: Floats) -> tuple[Floats, Floats]:
        """Weights ``(P,)`` that share out a gap of 1, and the part ``(N,)`` of the squared error that this leaves."""
        energy = self.widths**2
        own = np.maximum(self.sum(energy * (jumps**2 + _RIDGE * squares)), _TINY)
        weights = self._of_jumps(energy * jumps) / own[self.sample.rows]
        explained = self.sample.squares(weights)
        total = np.maximum(self.sum(energy * squares), _TINY)
        return weights, np.clip(1 - np.nan_to_num(explained * own / total, nan=0.0), 0, 1)

    def _expected(self, squares: Floats, rough: Floats, smooth: Floats, share: Floats) -> Floats:
        # Beyond the outermost points the path leads away from one gradient, instead of between two.
        beside = np.arange(len(squares)) + self.at_start.astype(np.int64) - self.at_end
        outer = 4 * self.widths * squares[beside] / self.widths[beside]
        brownian = self.widths**2 * np.where(self.inner, squares, outer) / 12
        seen = self.several[self.rows] * rough**2
        calibration = np.clip(self.sum(seen) / np.maximum(self.sum(brownian), _TINY), 0.3, 2) ** 0.5
        kinked = np.maximum(brownian * calibration[self.rows], seen / 2)
        return kinked + share[self.rows] * (self.several[self.rows] * smooth**2 - kinked)

    def _captum_cells(self) -> Floats:
        r"""What is left of an interval's squared error in Captum's cells, of width :math:`\pi \sqrt{t (1 - t)} / 50`.

        The square of the ratio of their widths, as for a Brownian motion; its cube where they are narrower, as nobody has
        seen yet how rough the path is within.
        """
        left, right = (point**2 / 2 - point**3 / 3 for point in (self.left, self.right))
        squares = (math.pi / _CAPTUM_STEPS) ** 2 * np.maximum(right - left, 0) / np.maximum(self.widths, 1e-12) ** 3
        return squares * np.minimum(squares, 1) ** 0.5

    def _trapezium(self) -> Floats:
        count, half = len(self.sample.sums), self.widths / 2
        return _added(self.first, half, count) + _added(self.second, half, count)

    def _of_jumps(self, weights: Floats) -> Floats:
        """Weights of the jumps ``(I,)`` as weights of the gradients ``(P,)``."""
        count = len(self.sample.sums)
        return _added(self.second, weights, count) - _added(self.first, weights, count)


def _added(index: Indices, values: Floats, count: int) -> Floats:
    """Values, added up for each index below ``count``."""
    return np.bincount(index, values, count).astype(np.float64, copy=False)


def further_points(intervals: PathIntervals, target: Floats, limit: int) -> tuple[Indices, Floats]:
    r"""Where gradients are to be taken next, so that the squared errors fall to ``target``.

    An interval cut into k parts keeps :math:`k^{-2}` of its error, so that errors :math:`E_j` are least at
    :math:`k_j \propto E_j^{1/3}`.

    Args:
        intervals: what is known.
        target: ``(N,)``, squared error of a row's attributions; 0 for as many points as there may be.
        limit: points that a row may have in all.

    Returns:
        Rows ``(K,)`` and points ``(K,)``, in order.
    """
    sizes, rows, counts = np.cbrt(intervals.errors), intervals.rows, intervals.sample.counts
    total = np.maximum(intervals.sum(sizes), _TINY)
    left = intervals.error / np.maximum(intervals.sum(intervals.errors), _TINY)
    rate = np.minimum(np.sqrt(left * total / np.maximum(target, _TINY)), (limit + 1) / total)
    room = np.maximum(limit - counts, 0)
    for _ in range(_ATTEMPTS):
        parts = np.maximum(np.rint(rate[rows] * sizes), 1) - 1
        extra = intervals.sum(parts)
        if (extra <= room).all():
            break
        rate = rate * np.where(extra > room, np.minimum((limit + 1) / (counts + extra + 1), 0.97), 1.0)
    over = extra > room
    parts = np.where(over[rows], np.floor(parts * (room / np.maximum(extra, 1))[rows]), parts).astype(np.int64)
    index = np.repeat(np.arange(len(parts)), parts)
    turn = np.arange(len(index)) - (np.cumsum(parts) - parts)[index] + 1
    several = parts[index]
    at = turn / (several + 1)
    at = np.where(intervals.at_start[index], (2 * turn - 1) / (2 * several + 1), at)
    at = np.where(intervals.at_end[index], 2 * turn / (2 * several + 1), at)
    return rows[index], intervals.left[index] + at * intervals.widths[index]
