r"""Whether a gradient is the derivative of f along a path, from f at five points close to each other.

Where f is the same straight line on two scales, its slope D is known. A gradient along the path, s, is not that of f if it
is further from D than f bends or is rounded there:

.. math:: |s - D| > 2 \max(|D_+ - D_-|, |D_{far} - D|) + \epsilon |f| / h + \max(|s|, |D|) / 50

At a kink the slopes on its two sides differ, and steps too small to matter are seen on one of the scales alone.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

NEAR, FAR = 0.003, 0.03
"""How far from a point f is evaluated, on both sides, in lengths of the path."""
PLACES = 3
"""Gradients of a path that are checked, evenly spread."""
DOUBTFUL = 0.05
"""Part of what f changes by along the path that gradients may miss before they are checked."""
FINE = 1e-5
"""Precision of f needed to tell its slope from rounding: single or better."""
_LARGE, _NOTICEABLE = 0.02, 0.02
"""Largest miss, as a part of the slope there, and of the change along the whole path."""
_UNSURE = 2.0
"""Factor over how f bends."""
_ROUNDING = 32
"""Units in the last place by which f may be rounded."""


@np.errstate(invalid="ignore", over="ignore")
def missed_part(sums: Floats, weights: Floats, total: Floats) -> Floats:
    """What a quadrature misses of the change of f, as a part of what f changes by along the path, ``(N,)``.

    Args:
        sums, weights: ``(N, G)``, of gradients times (input - baseline) over the players, and of the quadrature.
        total: ``(N,)``, f at the input minus f at the baseline.
    """
    missed = np.abs(total - (sums * weights).sum(1))
    part: Floats = missed / np.maximum(change_along(sums, weights, total), np.finfo(np.float64).tiny)
    return part


def change_along(sums: Floats, weights: Floats, total: Floats) -> Floats:
    """Total variation of f along a path, estimated by a quadrature, ``(N,)``; arguments as above."""
    size: Floats = np.maximum(np.abs(sums * weights).sum(1), np.abs(total))
    return size


@np.errstate(invalid="ignore", over="ignore")
def is_no_derivative(slope: Floats, values: Floats, size: Floats, precision: float) -> NDArray[np.bool_]:
    """Whether the slope at a point is not that of f, ``(*R)``; False where f is not finite or too rough to tell.

    Args:
        slope: ``(*R)``, gradient times (input - baseline) at a point, summed over the players.
        values: ``(*R, 5)``, f at the point, and NEAR and FAR from it, in order; or ``(*R, 3)``, without those that are
            far, which tell what may be no derivative.
        size: ``(*R)``, what f changes by along the path (:func:`change_along`).
        precision: of f, as ``torch.finfo(dtype).eps``.

    >>> offsets, one = np.array([-FAR, -NEAR, 0, NEAR, FAR]), np.ones(1)
    >>> [bool(is_no_derivative(one, f[None], one, 1e-7)[0]) for f in (offsets, 2 * offsets, np.abs(offsets))]
    [False, True, False]
    """
    middle = values.shape[-1] // 2
    left, centre, right = np.moveaxis(values[..., middle - 1 : middle + 2], -1, 0)
    near, bend = (right - left) / (2 * NEAR), np.abs(right + left - 2 * centre) / NEAR
    if middle == 2:
        bend = np.maximum(bend, np.abs((values[..., -1] - values[..., 0]) / (2 * FAR) - near))
    rounding = _ROUNDING * precision * np.abs(values).max(-1) / NEAR
    apart = np.abs(slope - near)
    large = apart - _UNSURE * bend - rounding > _LARGE * np.maximum(np.abs(slope), np.abs(near))
    found: NDArray[np.bool_] = large & (apart > _NOTICEABLE * size)
    return found
