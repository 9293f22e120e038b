"""Gauss-Legendre quadrature on [0, 1], and its interpolant integrated piece by piece."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from torch import Tensor


def gauss_legendre(n: int) -> tuple[Tensor, Tensor]:
    """Nodes and weights of the ``n``-point rule on [0, 1], float64, nodes ascending.

    >>> nodes, weights = gauss_legendre(2)
    >>> bool(torch.isclose((weights * nodes**3).sum(), torch.tensor(0.25).double()))
    True
    """
    if n < 1:
        raise ValueError(f"A quadrature needs at least one point, got {n}: pass n_steps >= 1.")
    nodes, weights = np.polynomial.legendre.leggauss(n)
    return torch.from_numpy((nodes + 1) / 2), torch.from_numpy(weights / 2)


@lru_cache(maxsize=64)
@torch.inference_mode(False)
def _interval_weights(points: tuple[float, ...]) -> Tensor:
    edges = np.array([0.0, *points, 1.0])
    columns = []
    for index, point in enumerate(points):
        others = np.delete(np.array(points), index)
        roots = np.polynomial.Polynomial.fromroots(2 * others - 1) if len(others) else np.polynomial.Polynomial([1.0])
        basis = roots / np.prod(2 * (point - others))
        columns.append(np.diff(basis.integ()(2 * edges - 1)) / 2)
    return torch.from_numpy(np.stack(columns, axis=-1))


def interval_weights(points: Tensor) -> Tensor:
    """Integrate the polynomial through values at ``points`` over each interval between 0, the points and 1.

    Args:
        points: ``(G,)`` ascending in (0, 1), at most about 20 (beyond, high-degree interpolation loses digits).

    Returns:
        ``(G + 1, G)`` float64: row j times the values is the integral over the j-th interval. At Gauss-Legendre nodes
        the column sums are the weights of the rule.

    >>> nodes, weights = gauss_legendre(3)
    >>> torch.allclose(interval_weights(nodes).sum(0), weights)
    True
    """
    return _interval_weights(tuple(points.tolist())).to(points.device)
