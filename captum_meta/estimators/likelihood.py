"""The likelihood of a Gaussian process at its best amplitude, and its gradient."""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta._numbers import TINY
from captum_meta.estimators.conditioning import cholesky_factor

_MOMENTA, _EPSILON = (0.9, 0.999), 1e-8


def standardised(
    worths: Float[Tensor, "R N"], known: Bool[Tensor, "R N"]
) -> tuple[Float[Tensor, "R N"], Float[Tensor, "R 1"], Float[Tensor, "R 1"]]:
    """What is known of each row in units of its spread about its mean, 0 elsewhere; the mean and the unit; all float64."""
    count = known.sum(1, keepdim=True).clamp(min=1)
    mean = torch.where(known, worths.double(), 0.0).sum(1, keepdim=True) / count
    centred = torch.where(known, worths - mean, 0.0)
    spread = (centred.square().sum(1, keepdim=True) / count).sqrt()
    unit = torch.where(spread > 0, spread, 1.0)
    return centred / unit, mean, unit


def likelihood_slopes(
    covariance: Float[Tensor, "R N N"], residual: Float[Tensor, "R N"], known: Bool[Tensor, "R N"]
) -> Float[Tensor, "R N N"]:
    r"""Gradient with respect to K of minus the log density, up to a constant, of what was seen, ``(R, N, N)``.

    .. math:: \frac n 2 \log(y^T K^{-1} y) + \frac 1 2 \log \det K

    With an amplitude in front of K, the one that makes y most likely leaves this (Rasmussen and Williams 2006, chapter 5).

    Args:
        covariance: K, ``(R, N, N)``; where something is not known a one on the diagonal and zeros beside it.
        residual: y, ``(R, N)``; 0 where it is not known.
        known: ``(R, N)`` bool.
    """
    factor = cholesky_factor(covariance)
    coefficients = torch.cholesky_solve(residual.unsqueeze(-1), factor)
    squares = (residual.unsqueeze(1) @ coefficients).clamp(min=TINY)
    count = known.sum(1).reshape(-1, 1, 1)
    slopes = torch.cholesky_inverse(factor).baddbmm_(coefficients, coefficients.mT * (-count / squares)).mul_(0.5)
    # Where something is not known, the diagonal's one is all that is there beside zeros.
    slopes.diagonal(dim1=-2, dim2=-1).masked_fill_(~known, 0.0)
    return slopes


def descended(start: Tensor, slope: Callable[[Tensor], Tensor], steps: int, rate: float) -> Tensor:
    """Where so many steps of Adam lead (Kingma and Ba 2015) from ``start``, along ``slope`` of where they are.

    They are those of ``torch.optim.Adam``, which imports torch's compiler, and that takes a second.

    >>> round(float(descended(torch.zeros(()).double(), lambda x: 2 * (x - 1), 200, 0.1)), 4)
    1.0
    """
    found = start.clone()
    mean, square = torch.zeros_like(start), torch.zeros_like(start)
    for step in range(1, steps + 1):
        gradient = slope(found)
        mean.lerp_(gradient, 1 - _MOMENTA[0])
        square.mul_(_MOMENTA[1]).addcmul_(gradient, gradient, value=1 - _MOMENTA[1])
        size = (square.sqrt() / (1 - _MOMENTA[1] ** step) ** 0.5).add_(_EPSILON)
        found.addcdiv_(mean, size, value=-rate / (1 - _MOMENTA[0] ** step))
    return found
