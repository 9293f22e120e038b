r"""Corrections by f's change of integrals :math:`\int g\, dt` of gradients that jump between the nodes of a path.

Between two nodes the gradients g over a layer's activations h change by J, and f changes by :math:`\int g\, dh`. Where the
change is one jump, the gap of a quadrature locates the jump (Hermite's and Gauss's rules have no jumps):

.. math:: e = \Delta f - \bar g \cdot \Delta h, \qquad
    \int g\, dt \approx w \bar g + w \frac{e\, (J \cdot \Delta h)}{(J \cdot \Delta h)^2 + \lambda |J|^2 |\Delta h|^2} J

Paths of other kinds miss in other directions. So every other node is left out, and the correction counts by as much as it
would have corrected of what is then missed, between not at all and in full.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta._numbers import TINY

_RIDGE = 1e-3


def jump_corrections(
    points: Float[Tensor, "N G"],
    shares: Float[Tensor, "N intervals G"],
    gradients: Float[Tensor, "N E G"],
    activations: Float[Tensor, "N E ends"],
    values: Float[Tensor, "N ends"],
) -> Float[Tensor, "N E"]:
    """Corrections of the quadrature of the gradients, ``(N, E)`` float64.

    Args:
        points: nodes, ascending in (0, 1).
        shares: weights of the nodes' gradients in the integrals over the ``G + 1`` intervals between them and the ends.
        gradients: at the nodes.
        activations, values: the layer and f, at 0, the nodes and 1.
    """
    slopes, path = gradients.double(), activations.double()[..., 1:-1]
    widths, changes = points.double().diff(dim=1), values.double()[:, 1:-1].diff(dim=1)
    inner = shares.double()[:, 1:-1] / widths.unsqueeze(-1).clamp(min=TINY)
    means = torch.einsum("nip,nep->nei", inner, slopes)
    found = _of_jumps(slopes.diff(dim=2), path.diff(dim=2), means, changes, widths)

    left, right = slopes[..., :-2], slopes[..., 2:]
    across = widths[:, 1:] + widths[:, :-1]
    before = _of_jumps(
        right - left, path[..., 2:] - path[..., :-2], (left + right) / 2, changes[:, 1:] + changes[:, :-1], across
    )
    halves = (slopes[..., 1:] + slopes[..., :-1]) / 2 * widths.unsqueeze(1)
    missed = halves[..., 1:] + halves[..., :-1] - (left + right) / 2 * across.unsqueeze(1)
    share = (missed * before).sum((1, 2)) / before.square().sum((1, 2)).clamp(min=TINY)
    corrections = found.sum(2) * share.clamp(0, 1).unsqueeze(1)
    return torch.where(corrections.isfinite(), corrections, 0.0)


def _of_jumps(
    jumps: Float[Tensor, "N E I"],
    moved: Float[Tensor, "N E I"],
    means: Float[Tensor, "N E I"],
    changes: Float[Tensor, "N I"],
    widths: Float[Tensor, "N I"],
) -> Float[Tensor, "N E I"]:
    """The formula's last term for each interval; a jump lies within its interval."""
    along = (jumps * moved).sum(1)
    size = along.square() + _RIDGE * jumps.square().sum(1) * moved.square().sum(1)
    positions = (changes - (means * moved).sum(1)) * along / size.clamp(min=TINY)
    return jumps * (widths * positions.clamp(-0.5, 0.5)).unsqueeze(1)
