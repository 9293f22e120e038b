r"""Whether gradients along a path are those of f. Straight-through rounding and detached parts have others.

Between two points of the path f changes by :math:`\Delta_j`, and the trapezium of the sums s of (gradient times difference)
says :math:`h_j (s_j + s_{j+1}) / 2`. If s rises or falls all the way between them, the two differ by
:math:`h_j |s_{j+1} - s_j| / 2` at most. What they differ by beyond the largest such jump nearby, no gradient explains.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import max_pool1d

_LARGE = 0.25
"""Part of an interval's change, and of all changes, that is too much to be missed."""
_NOTICEABLE = 0.1
"""Part of the path's mean change for such a length that is too little to matter."""
_FEWEST = 8
"""Gradients from which the answer is sure: of 1,920 rows of the synthetic family none was taken for inconsistent."""


def inconsistent_gradients(points: Tensor, sums: Tensor, curve: Tensor, total: Tensor) -> Tensor:
    """Whether gradients do not explain how f changes on more than half of the path, ``(N,)``; False for fewer than eight.

    Args:
        points: ``(N, G)``, ascending in (0, 1).
        sums: ``(N, G)``, gradients times (input - baseline) there, summed over the players.
        curve: ``(N, G)``, f there minus f at the baseline.
        total: ``(N,)``, f at the input minus f at the baseline.

    >>> t = torch.linspace(0.05, 0.95, 10).unsqueeze(0)
    >>> inconsistent_gradients(t, 2 * t, t**2, torch.ones(1)), inconsistent_gradients(t, -2 * t, t**2, torch.ones(1))
    (tensor([False]), tensor([True]))
    """
    if points.shape[-1] < _FEWEST:
        return torch.zeros_like(total, dtype=torch.bool)
    zero = torch.zeros_like(total).unsqueeze(-1)
    widths = torch.cat([zero, points.to(total), zero + 1], dim=-1).diff(dim=-1)
    changes = torch.cat([zero, curve, total.unsqueeze(-1)], dim=-1).diff(dim=-1)
    sides = torch.cat([sums[..., :1], sums, sums[..., -1:]], dim=-1)
    expected = widths * (sides[..., 1:] + sides[..., :-1]) / 2
    jumps = max_pool1d(sides.diff(dim=-1).abs(), 3, stride=1, padding=1)
    apart, size = changes - expected, torch.maximum(changes.abs(), expected.abs())
    missed, whole = apart.abs() - widths * jumps / 2, size.sum(-1, keepdim=True)
    unexplained = (missed > _LARGE * size) & (missed > _NOTICEABLE * widths * whole)
    so_far = torch.cat([zero, apart.cumsum(-1)], dim=-1)
    together = so_far.amax(-1) - so_far.amin(-1)  # of rounding, what one interval gains the next one loses
    return (torch.where(unexplained, widths, 0.0).sum(-1) > 0.5) & (together > _LARGE * whole.squeeze(-1))
