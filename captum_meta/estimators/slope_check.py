r"""Whether a gradient is the derivative of f along a path, from f at five points close to each other.

Where f is the same straight line on two scales, its slope D is known. A gradient along the path, s, is not that of f if it
is further from D than f bends or is rounded there:

.. math:: |s - D| > \max(|D_+ - D_-|, |D_{far} - D|) + \epsilon |f| / h + \max(|s|, |D|) / 4

At a kink the slopes on its two sides differ, and steps too small to matter are seen on one of the scales alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

_NEAR, _FAR = 0.003, 0.03
OFFSETS = (-_FAR, -_NEAR, 0.0, _NEAR, _FAR)
"""Offsets from a point at which f is evaluated, in lengths of the path."""
FINE = 1e-5
"""Precision of f needed to tell its slope from rounding: single or better."""
_DOUBTFUL = 0.25
"""Part of a change of f that gradients may miss before slopes are checked."""
_LARGE, _NOTICEABLE = 0.25, 0.1
"""Largest miss, as a part of the slope there, and of the change along the whole path."""
_ROUNDING = 32
"""Units in the last place by which f may be rounded."""


def leaves_doubt(sums: Floats, weights: Floats, total: Floats) -> NDArray[np.bool_]:
    """Whether a quadrature misses much of the change of f, ``(N,)``: only then it matters whose the difference is.

    Args:
        sums, weights: ``(N, G)``, of gradients times (input - baseline) over the players, and of the quadrature.
        total: ``(N,)``, f at the input minus f at the baseline.
    """
    missed = np.abs(total - (sums * weights).sum(1))
    doubtful: NDArray[np.bool_] = missed > _DOUBTFUL * change_along(sums, weights, total)
    return doubtful


def change_along(sums: Floats, weights: Floats, total: Floats) -> Floats:
    """Total variation of f along a path, estimated by a quadrature, ``(N,)``; arguments as above."""
    size: Floats = np.maximum(np.abs(sums * weights).sum(1), np.abs(total))
    return size


@np.errstate(invalid="ignore", over="ignore")
def is_no_derivative(slope: Floats, values: Floats, size: Floats, precision: float) -> NDArray[np.bool_]:
    """Whether the slope at a point is not that of f, ``(R,)``; False where f is not finite or too rough to tell.

    Args:
        slope: ``(R,)``, gradient times (input - baseline), summed over the players.
        values: ``(R, 5)``, f at the :data:`OFFSETS` from the point.
        size: ``(R,)``, what f changes by along the path (:func:`change_along`).
        precision: of f, as ``torch.finfo(dtype).eps``.

    >>> offsets, one = np.array(OFFSETS), np.ones(1)
    >>> [bool(is_no_derivative(one, f[None], one, 1e-7)[0]) for f in (offsets, 2 * offsets, np.abs(offsets))]
    [False, True, False]
    """
    far_left, left, middle, right, far_right = values.T
    near, far = (right - left) / (2 * _NEAR), (far_right - far_left) / (2 * _FAR)
    sides = np.abs(right + left - 2 * middle) / _NEAR
    rounding = _ROUNDING * precision * np.abs(values).max(1) / _NEAR
    apart, unsure = np.abs(slope - near), np.maximum(sides, np.abs(far - near)) + rounding
    large = apart - unsure > _LARGE * np.maximum(np.abs(slope), np.abs(near))
    found: NDArray[np.bool_] = large & (apart > _NOTICEABLE * size)
    return found
