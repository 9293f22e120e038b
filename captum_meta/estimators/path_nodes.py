r"""The points of the path at which gradients are taken: nodes placed for each row by three values of f.

Explained models seldom bend evenly along the path: layer norms turn near the baseline, probabilities saturate near the
input. A gradient that has poles at :math:`m \pm iw` is smooth in the coordinate

.. math:: \theta(t) = \arctan \frac{t - m}{w}

so the nodes are those of Gauss-Legendre in that coordinate, scaled to [0, 1] (Bayliss and Turkel, *Mappings and accuracy
for Chebyshev pseudo-spectral approximations*, 1992; Hale and Trefethen, *New quadrature formulas from conformal maps*,
2008). f halfway gives the row's m and w: both are linear in the double angle of the changes of f on the two halves of the
path, which does not see the output's units, its sign or its offset.

Tried without gain: the first one to four gradients at fixed nodes, whose slopes place the others (what they tell is worth
what it costs to be bound to them); tables of maps with a learned choice; a network in place of the twelve constants.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.estimators.quadrature import MAX_INTERPOLATED, gauss_legendre

PLACING = (
    (0.322, 0.200, 0.014, -0.009, 0.090, 0.125),
    (-0.657, 0.119, -0.037, -0.203, 0.398, 0.663),
)
"""m and log w from ``(1, c, s, c / n, s / n, 1 / n)``; found by ``python -m captum_meta.training.path_nodes``."""
_ROUNDING = 64
"""Changes of f below this many times its precision count as none."""


def path_nodes(values: Float[Tensor, "N 3"], n: int) -> Float[Tensor, "N n"]:
    r"""Points of the path at which gradients of each row are taken.

    .. math:: c + is = \frac{(b + ia)^2}{a^2 + b^2}, \quad a = f(\tfrac12) - f(0), \quad b = f(1) - f(\tfrac12)

    Args:
        values: ``(N, 3)``, f at the baseline, halfway and at the input.
        n: gradients per row. Where not :func:`is_bent`, the nodes are those of Gauss and Legendre.

    Returns:
        ``(N, n)`` float64, ascending in (0, 1).

    >>> path_nodes(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.9, 2.0]]), 3).round(decimals=2)
    tensor([[0.1200, 0.4700, 0.8500],
            [0.0900, 0.3800, 0.8000]], dtype=torch.float64)
    """
    nodes = gauss_legendre(n)[0].to(values.device)
    if not is_bent(n):
        return nodes.expand(len(values), -1)
    return bent(nodes, *placing(values, n, _placing().to(values.device)))


@lru_cache(maxsize=1)
@torch.inference_mode(False)
def _placing() -> Float[Tensor, "2 6"]:
    return torch.tensor(PLACING, dtype=torch.float64)


def is_bent(n: int) -> bool:
    """Whether ``n`` nodes depend on the row: from 2 to 32, which is as many as :func:`interval_weights` interpolates."""
    return 1 < n <= MAX_INTERPOLATED


def placing(
    values: Float[Tensor, "N 3"], n: int, constants: Float[Tensor, "2 6"]
) -> tuple[Float[Tensor, " N"], Float[Tensor, " N"]]:
    """m and w ``(N,)`` of the rows whose f at 0, 1/2 and 1 is ``values (N, 3)``, from constants ``(2, 6)``."""
    precision, values = torch.finfo(values.dtype).eps, values.double()
    first, second = values.diff(dim=-1).unbind(-1)
    rounding = _ROUNDING * precision * values.abs().amax(-1)
    squares = first.square(), second.square()
    size = (squares[0] + squares[1] + rounding.square()).clamp(min=torch.finfo(torch.float64).tiny)
    angle = torch.stack([squares[1] - squares[0], 2 * first * second], dim=-1) / size.unsqueeze(-1)
    angle = angle.nan_to_num(0.0, 0.0, 0.0)
    one = torch.ones_like(angle[:, :1])
    m, log_w = (torch.cat([one, angle, angle / n, one / n], dim=-1) @ constants.mT).unbind(-1)
    return m, log_w.exp()


def bent(nodes: Float[Tensor, " n"], m: Float[Tensor, " N"], w: Float[Tensor, " N"]) -> Float[Tensor, "N n"]:
    """Nodes ``(n,)`` of an even path where the coordinate of ``m`` and ``w`` ``(N,)`` has them, ``(N, n)``."""
    low, high = torch.atan(-m / w).unsqueeze(-1), torch.atan((1 - m) / w).unsqueeze(-1)
    return m.unsqueeze(-1) + w.unsqueeze(-1) * torch.tan(low + (high - low) * nodes)
