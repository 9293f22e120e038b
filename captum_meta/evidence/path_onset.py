r"""Paths along which f changes at their very beginning, and hardly behind it.

So it is where inputs are normalised or their logarithm is taken, with a baseline of zero. With :math:`t = c (e^{L u} - 1)`,
all scales from the tiny c to 1 take up as much of u, along which gradients times :math:`dt/du` are smooth: 24 nodes of
Gauss and Legendre in u integrate them to 1e-6 where :math:`t / \sqrt{t^2 + a^2}` rises at any a between 1e-6 and .02; 50
nodes in t miss all of it from an a of 1e-4 on.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray

from captum_meta.estimators import PathIntervals, gauss_legendre
from captum_meta.estimators.path_sample import Floats, Indices

COUNT = 24
_FIRST = 1e-6
"""The scale c, as a part of the path."""
_MUCH = 0.5
"""Part of what is missed of f's changes that lies before the first gradient."""
_MISSED, _SMOOTH = 1e-5, 1e-2
"""Of the attributions' squares, the parts that are left for what is missed, and for the last coefficients in u."""


def begins_early(intervals: PathIntervals) -> NDArray[np.bool_]:
    """Whether much of what gradients miss of f's changes lies before the first of them, ``(N,)``."""
    missed = np.abs(
        intervals.changes - intervals.widths * intervals.sample.sums[[intervals.first, intervals.second]].mean(0)
    )
    found: NDArray[np.bool_] = intervals.sum(missed * intervals.at_start) > _MUCH * intervals.sum(missed)
    return found


def with_onset(rows: Indices, points: Floats, early: Indices) -> tuple[Indices, Floats]:
    """Points ``(K,)`` of the rows ``(K,)``, in order, where those of the ``early`` rows are replaced by the nodes in u."""
    others = ~np.isin(rows, early)
    rows = np.concatenate([rows[others], np.repeat(early, COUNT)])
    points = np.concatenate([points[others], np.tile(_onset()[0], len(early))])
    order = np.argsort(rows, kind="stable")
    return rows[order], points[order]


def of_onset(intervals: PathIntervals, early: NDArray[np.bool_]) -> tuple[Floats, Floats, NDArray[np.bool_]]:
    """Weights ``(P,)`` and squared errors ``(N,)`` from the gradients at these points alone, and the rows that they explain.

    Args:
        intervals: of N rows.
        early: ``(N,)``, the rows that have been differentiated there.
    """
    points, weights, last = _onset()
    sample = intervals.sample
    there = early[sample.rows] & np.isin(sample.points, points)
    placed = np.zeros((3, len(there)))
    placed[:, there] = np.tile(np.concatenate([weights[None], last]), (1, int(early.sum())))
    gap = sample.certain(
        intervals.sum(intervals.changes) - np.bincount(sample.rows, placed[0] * sample.sums), np.arange(len(early))
    )
    size, error = sample.squares(placed[0]), intervals.several * gap**2
    rest = sample.squares(placed[1]) + sample.squares(placed[2])
    return placed[0], error, early & (error < _MISSED * size) & (rest < _SMOOTH * size)


@lru_cache(maxsize=1)
@torch.inference_mode(False)
def _onset() -> tuple[Floats, Floats, Floats]:
    """Points and weights ``(COUNT,)``, and weights of the last two orthonormal coefficients ``(2, COUNT)``."""
    nodes, weights = (part.double().numpy() for part in gauss_legendre(COUNT))
    length = np.log1p(1 / _FIRST)
    weights = weights * _FIRST * length * np.exp(length * nodes)
    last = legvander(2 * nodes - 1, COUNT - 1)[:, -2:] * np.sqrt(2 * np.arange(COUNT - 2, COUNT) + 1)
    return _FIRST * np.expm1(length * nodes), weights, last.T * weights
