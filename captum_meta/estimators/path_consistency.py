r"""Whether gradients along a path are those of f. Straight-through rounding and detached parts have others.

Between two points of the path f changes by :math:`\Delta_j`, and the trapezium of the sums s of (gradient times difference)
says :math:`h_j (s_j + s_{j+1}) / 2`. If s rises or falls all the way between them, the two differ by
:math:`h_j |s_{j+1} - s_j| / 2` at most. What they differ by beyond the largest such jump nearby, no gradient explains.
Where f itself jumps, as at a hard gate, this is so between two points, however close to each other they are.

Where a polynomial describes the sums, its integral is known far better, and shows small detached parts, too: what f and the
integral differ by then is itself a smooth curve, and not a step or noise.
"""

from __future__ import annotations

from contextlib import suppress
from functools import lru_cache

import numpy as np
import torch
from numpy.polynomial.legendre import legint, legvander
from numpy.typing import NDArray

from captum_meta.estimators.path_sample import Floats, Indices
from captum_meta.estimators.quadrature import interval_weights, quadrature_weights

_LARGE = 0.25
"""Part of an interval's change, and of all changes, that is too much to be missed."""
_NOTICEABLE = 0.1
"""Part of the path's mean change for such a length that is too little to matter."""
_FEWEST = 8
"""Gradients from which the answer is sure: of 1,920 rows of the synthetic family none was taken for inconsistent."""
_FEWEST_SMOOTH = 5
"""Gradients from which none of 1,500 rows of the synthetic family and others was taken for smoothly inconsistent."""
_DEGREE, _DEGREE_APART = 9, 4
"""Of the polynomials through the gradients, and through what f and their integral differ by."""
_TIMES, _SMALL, _REST = 10.0, 1e-3, 0.1
"""What they differ by in units of the last coefficients, as a part of f's changes, and what of it is no polynomial."""

_EXPLAINED = 1e-4
"""Part of f's changes that is small beside all that is looked for."""
_STEP, _STEP_OF_ONE = 0.01, 0.25
"""Part of all changes along the path that a jump of f is at the least, to be looked for: of many gradients, and of one."""


@np.errstate(invalid="ignore", over="ignore")
def inconsistent_gradients(points: Floats, sums: Floats, curve: Floats, total: Floats) -> NDArray[np.bool_]:
    """Whether gradients do not explain how f changes on more than half of the path, ``(N,)``; False for fewer than eight.

    Args:
        points: ``(N, G)``, ascending in (0, 1).
        sums: ``(N, G)``, gradients times (input - baseline) there, summed over the players.
        curve: ``(N, G)``, f there minus f at the baseline.
        total: ``(N,)``, f at the input minus f at the baseline.

    >>> t, one = np.linspace(0.05, 0.95, 10)[None], np.ones(1)
    >>> inconsistent_gradients(t, 2 * t, t**2, one), inconsistent_gradients(t, -2 * t, t**2, one)
    (array([False]), array([ True]))
    """
    if points.shape[-1] < _FEWEST:
        return np.zeros(len(total), dtype=np.bool_)
    zero = np.zeros((len(total), 1))
    widths = np.diff(np.concatenate([zero, points, zero + 1], axis=1))
    changes = np.diff(np.concatenate([zero, curve, total[:, None]], axis=1))
    sides = np.concatenate([sums[:, :1], sums, sums[:, -1:]], axis=1)
    expected = widths * (sides[:, 1:] + sides[:, :-1]) / 2
    jumps = np.concatenate([zero, np.abs(np.diff(sides)), zero], axis=1)
    largest = np.maximum(np.maximum(jumps[:, :-2], jumps[:, 2:]), jumps[:, 1:-1])
    apart, size = changes - expected, np.maximum(np.abs(changes), np.abs(expected))
    missed, whole = np.abs(apart) - widths * largest / 2, size.sum(1, keepdims=True)
    unexplained = (missed > _LARGE * size) & (missed > _NOTICEABLE * widths * whole)
    so_far = np.concatenate([zero, apart.cumsum(1)], axis=1)
    together = np.ptp(so_far, axis=1)  # of rounding, what one interval gains the next one loses
    found: NDArray[np.bool_] = ((widths * unexplained).sum(1) > 0.5) & (together > _LARGE * whole[:, 0])
    return found


@np.errstate(invalid="ignore", over="ignore")
def explained_everywhere(points: Floats, sums: Floats, curve: Floats, total: Floats) -> NDArray[np.bool_]:
    """Whether a quadrature of the gradients gives f at all points, up to a ten-thousandth of its changes, ``(N,)``.

    Arguments are as above. No other check finds what is as small.

    >>> from captum_meta.estimators import gauss_legendre
    >>> t, one = gauss_legendre(4)[0].numpy()[None], np.ones(1)
    >>> explained_everywhere(t, 2 * t, t**2, one), explained_everywhere(t, 1.9 * t, t**2, one)
    (array([ True]), array([False]))
    """
    zero = np.zeros((len(total), 1))
    heights = np.concatenate([zero, curve, total[:, None]], axis=1)
    size = np.abs(np.diff(heights)).sum(1)
    found: NDArray[np.bool_] = np.abs(total - (quadrature_weights(points) * sums).sum(1)) < _EXPLAINED * size
    if found.any():
        parts = interval_weights(torch.from_numpy(points)).numpy() @ sums[..., None]
        found &= (np.abs(curve - parts[:, :-1, 0].cumsum(1)) < _EXPLAINED * size[:, None]).all(1)
    return found


@np.errstate(invalid="ignore", over="ignore")
def smoothly_inconsistent(points: Floats, sums: Floats, curve: Floats, total: Floats) -> NDArray[np.bool_]:
    """Whether f leaves the integral of the polynomial through its gradients smoothly, ``(N,)``; False for fewer than five.

    Arguments are as above. By at least a thousandth of all its changes, and by ten times the polynomial's last two
    coefficients, which bound what it leaves open.

    >>> t, one = np.linspace(0.05, 0.95, 10)[None], np.ones(1)
    >>> smoothly_inconsistent(t, 2 * t, t**2, one), smoothly_inconsistent(t, 1.9 * t, t**2, one)
    (array([False]), array([ True]))
    """
    found = np.zeros(len(total), dtype=np.bool_)
    count = points.shape[-1]
    if (
        count < _FEWEST_SMOOTH
        or not (known := np.isfinite(sums).all(1) & np.isfinite(curve).all(1) & np.isfinite(total)).any()
    ):
        return found
    zero = np.zeros((len(total), 1))
    values = np.concatenate([zero, curve, total[:, None]], axis=1)[known]
    edges = 2 * np.concatenate([zero, points, zero + 1], axis=1)[known] - 1
    edges = edges[:1] if (edges == edges[:1]).all() else edges  # one set of polynomials for all rows
    degree = min(count - 1, _DEGREE)
    polynomials, given = legvander(edges, degree + 1), sums[known, :, None]
    basis = polynomials[:, 1:-1, : degree + 1]
    coefficients = _fitted(basis, given)
    unsure = np.linalg.norm(coefficients[:, -2:, 0], axis=1) + np.abs(basis @ coefficients - given).max((1, 2))
    apart = values - (polynomials @ (_integrals(degree) @ coefficients))[..., 0]
    size, by = np.abs(np.diff(values)).sum(1), np.ptp(apart, axis=1)
    large = (by > _TIMES * unsure) & (by > _SMALL * size)
    if large.any():
        smooth = polynomials[..., : min(_DEGREE_APART, count - 3) + 1]
        rest = apart - (smooth @ _fitted(smooth, apart[..., None]))[..., 0]
        large &= np.linalg.norm(rest, axis=1) < _REST * np.linalg.norm(apart, axis=1)
    found[known] = large
    return found


def _fitted(basis: Floats, values: Floats) -> Floats:
    """Coefficients ``(N, D, 1)`` of ``values (N, G, 1)`` in a ``basis (N or 1, G, D)``, by least squares."""
    if basis.shape[-1] == basis.shape[-2]:
        with suppress(np.linalg.LinAlgError):  # of points that coincide
            return np.asarray(np.linalg.solve(basis, values))
    q, r = np.linalg.qr(basis)
    coefficients: Floats = np.linalg.solve(r, q.swapaxes(-1, -2) @ values)
    return coefficients


@lru_cache
def _integrals(degree: int) -> Floats:
    """Legendre coefficients of the integrals of the polynomials up to ``degree``, from 0 on the path, a column each."""
    integrals: Floats = legint(np.eye(degree + 1), lbnd=-1) / 2
    return integrals


@np.errstate(invalid="ignore", over="ignore")
def suspected_steps(rows: Indices, sides: Floats, changes: Floats, sums: Floats) -> tuple[Floats, Floats]:
    """Between which two points of its path each row changes most by what its gradients do not explain.

    Args:
        rows: ``(I,)``, whose path each interval is on; those of row 0 come first, in order, then those of row 1.
        sides: ``(I, 2)``, points of the path at both ends of the interval.
        changes: ``(I,)``, of f between them.
        sums: ``(I, 2)``, gradients times (input - baseline) there, summed over the players.

    Returns:
        These points ``(N, 2)``, and the smallest jump of f that would matter, ``(N,)``; 0 where none is suspected.
    """
    widths, jumps = sides[:, 1] - sides[:, 0], np.abs(sums[:, 1] - sums[:, 0])
    same, largest = rows[1:] == rows[:-1], jumps.copy()
    largest[1:] = np.maximum(largest[1:], np.where(same, jumps[:-1], 0))
    largest[:-1] = np.maximum(largest[:-1], np.where(same, jumps[1:], 0))
    missed = np.abs(changes - widths * sums.mean(1)) - widths * largest / 2
    missed = np.where(np.isfinite(missed), missed, 0.0)
    counts = np.bincount(rows)
    most = np.maximum.reduceat(missed, np.cumsum(counts) - counts)
    largest = np.flatnonzero(missed == most[rows])
    place = np.zeros(len(counts), dtype=np.int64)
    place[rows[largest]] = largest
    least = np.maximum(_STEP, _STEP_OF_ONE / (counts - 1)) * np.bincount(rows, np.abs(changes))
    return sides[place], np.where(missed[place] > least, least, 0.0)
