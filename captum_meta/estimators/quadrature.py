"""Gauss-Legendre quadrature on [0, 1], and interpolants at its nodes, or at others, integrated piece by piece."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Bool, Float
from numpy.polynomial.legendre import legder, legvander
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

MAX_INTERPOLATED = 32
"""Nodes beyond which polynomials lose digits; steps are integrated instead."""
_ALIKE = 1e-5
"""How far the gaps of points may be from those of a Riemann sum."""


def gauss_legendre(n: int) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"]]:
    """Nodes and weights of the ``n``-point rule on [0, 1], float64, nodes ascending.

    >>> nodes, weights = gauss_legendre(2)
    >>> bool(torch.isclose((weights * nodes**3).sum(), torch.tensor(0.25).double()))
    True
    """
    if n < 1:
        raise ValueError(f"A quadrature needs at least one point, got {n}: pass n_steps >= 1.")
    nodes, weights = _rule(n)
    return nodes.clone(), weights.clone()


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _rule(n: int) -> tuple[Tensor, Tensor]:
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


def interval_weights(points: Float[Tensor, "*batch G"]) -> Float[Tensor, "*batch intervals G"]:
    r"""Integrate values at ``points`` over each interval between 0, the points and 1.

    Up to 32 points may lie anywhere. They are where some coordinate :math:`t(s)` of the path has the Gauss-Legendre nodes
    :math:`s_k`, and with t the polynomial through (0, 0), all :math:`(s_k, t_k)` and (1, 1), and :math:`\ell_k` the
    Lagrange polynomials of the nodes, row j holds

    .. math:: \int_{s_j}^{s_{j+1}} \ell_k(s)\, t'(s)\, ds

    At the Gauss-Legendre nodes themselves, t is the identity, and all rows together are the weights of the rule. Points
    evenly spaced (Riemann sums) and more than 32 stand for steps, whose edges part the path evenly or in the rule's weights.

    Args:
        points: ``(*batch, G)`` ascending in [0, 1].

    Returns:
        ``(*batch, G + 1, G)`` float64.

    >>> nodes, weights = gauss_legendre(3)
    >>> torch.allclose(interval_weights(nodes).sum(0), weights)
    True
    """
    count, points = points.shape[-1], points.double()
    if count > MAX_INTERPOLATED:
        smooth = _steps(points, gauss_legendre(count)[1].to(points.device))
    else:
        slopes, constant = (part.to(points.device) for part in _products(count))
        smooth = functional.linear(points, slopes, constant).unflatten(-1, (count + 1, count))
    even = _evenly_spaced(points)
    if even is None:
        return smooth
    steps = _steps(points, torch.full((count,), 1 / count, dtype=torch.float64, device=points.device))
    return torch.where(even[..., None, None], steps, smooth)


def quadrature_weights(points: NDArray[np.float64]) -> NDArray[np.float64]:
    """:func:`interval_weights` of points ``(N, G)``, added up over the intervals, ``(N, G)``.

    >>> nodes, weights = gauss_legendre(3)
    >>> np.allclose(quadrature_weights(nodes.numpy()[None]), weights)
    True
    """
    count, gaps = points.shape[1], np.diff(points)
    weights: NDArray[np.float64]
    if not 1 < count <= MAX_INTERPOLATED or (gaps.max(1) - gaps.min(1) < 2 * _ALIKE).any():
        weights = interval_weights(torch.from_numpy(points)).sum(-2).numpy()
        return weights
    slopes, constant = _summed_products(count)
    weights = points @ slopes + constant
    return weights


@lru_cache(maxsize=MAX_INTERPOLATED)
@torch.inference_mode(False)
def _summed_products(count: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    slopes, constant = (part.unflatten(0, (count + 1, count)).sum(0).numpy() for part in _products(count))
    return slopes.T, constant


@lru_cache(maxsize=MAX_INTERPOLATED)
@torch.inference_mode(False)
def _products(count: int) -> tuple[Float[Tensor, "shares G"], Float[Tensor, " shares"]]:
    """Integrals of :math:`\\ell_g(s) L_k'(s)` over the intervals, ``((G + 1) G, G)``; L_k belong to nodes and ends.

    Those of the end at 1 are apart, ``((G + 1) G,)``, those of the end at 0 left out.
    """
    nodes = 2 * gauss_legendre(count)[0].numpy() - 1
    edges = np.concatenate([[-1.0], nodes, [1.0]])
    within, weights = (part.numpy() for part in gauss_legendre(count + 1))
    widths = np.diff(edges)
    points = edges[:-1, None] + widths[:, None] * within
    values = legvander(points, count - 1) @ lagrange(nodes)
    slopes = legvander(points, count) @ legder(lagrange(edges))
    products = torch.from_numpy(np.einsum("j,q,jqg,jqk->jgk", widths, weights, values, slopes)).flatten(0, 1)
    return products[:, 1:-1].contiguous(), products[:, -1].contiguous()


def lagrange(points: np.ndarray) -> np.ndarray:
    """Legendre coefficients, a column each, of the polynomials that are 1 at one of the points and 0 at the others."""
    return np.linalg.inv(legvander(points, len(points) - 1))


def _steps(points: Float[Tensor, "*batch G"], widths: Float[Tensor, " G"]) -> Float[Tensor, "*batch intervals G"]:
    """Weights ``(*batch, G + 1, G)`` of steps of ``widths (G,)``, one for each point, in each interval between points."""
    edges = torch.cat([widths.new_zeros(1), widths.cumsum(0)])
    cuts = with_ends(points)
    lower = torch.maximum(cuts[..., :-1, None], edges[:-1])
    return (torch.minimum(cuts[..., 1:, None], edges[1:]) - lower).clamp(min=0)


def _evenly_spaced(points: Float[Tensor, "*batch G"]) -> Bool[Tensor, "*batch"] | None:
    """Whether ``points (*batch, G)`` are those of a Riemann sum, ``(*batch,)``; None where none are."""
    count = points.shape[-1]
    if count == 1:
        return torch.ones_like(points[..., 0], dtype=torch.bool)
    gaps = points.diff(dim=-1)
    least, most = gaps.aminmax(dim=-1)
    if not bool(((most - least) < 2 * _ALIKE).any()):
        return None
    return torch.stack([((gaps - 1 / parts).abs() < _ALIKE).all(-1) for parts in (count, count - 1)]).any(0)


def with_ends(points: Float[Tensor, "*batch G"]) -> Float[Tensor, "*batch edges"]:
    """Points ``(*batch, G)`` between 0 and 1, ``(*batch, G + 2)``."""
    zero = torch.zeros_like(points[..., :1])
    return torch.cat([zero, points, zero + 1], dim=-1)
