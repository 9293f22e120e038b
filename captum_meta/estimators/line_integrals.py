r"""Integrals :math:`\int g\, dh` along a path, of gradients g at its nodes over activations h at the nodes and the ends.

Captum's conductance multiplies each change of h with g at its beginning, which is exact to first order. Here h is the
polynomial through all its values, as the path itself is in :func:`~captum_meta.estimators.interval_weights`.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.legendre import legder, legvander
from torch import Tensor

from captum_meta.estimators.quadrature import MAX_INTERPOLATED, gauss_legendre, interval_weights, lagrange, with_ends


def rates(points: Float[Tensor, "N G"], values: Float[Tensor, "N E K"]) -> Float[Tensor, "N E G"]:
    r"""Derivatives of activations along the path, at its nodes.

    .. math:: \frac{dh}{dt}(t_k) = \frac{\sum_j L_j'(s_k) h_j}{\sum_j L_j'(s_k) t_j}

    with the Lagrange polynomials :math:`L_j` of the Gauss-Legendre nodes and the ends in the coordinate s.

    Args:
        points: ``(N, G)``, at most 32, ascending in (0, 1).
        values: ``(N, E, G + 2)``, at 0, the points and 1.

    Returns:
        ``(N, E, G)`` float64.

    >>> points = gauss_legendre(3)[0].unsqueeze(0)
    >>> values = torch.tensor([0.0, *points[0].square().tolist(), 1.0]).reshape(1, 1, 5)
    >>> torch.allclose(rates(points, values), 2 * points, atol=1e-6)
    True
    """
    slopes = _slopes(points.shape[-1]).to(points.device)
    return values.double() @ slopes.mT / (with_ends(points.double()) @ slopes.mT).unsqueeze(-2)


def trapezia(gradients: Float[Tensor, "N E G"], values: Float[Tensor, "N E K"]) -> Float[Tensor, "N E"]:
    """Sums of the gradients' means over the changes, for points of any kind and number, ``(N, E)`` float64.

    Args:
        gradients: ``(N, E, G)``, at points of the path.
        values: ``(N, E, G + 2)``, at 0, the points and 1.
    """
    edges = torch.cat([gradients[..., :1], gradients, gradients[..., -1:]], dim=-1).double()
    return ((edges[..., 1:] + edges[..., :-1]) / 2 * values.double().diff(dim=-1)).sum(-1)


def antiderivative(
    points: Float[Tensor, "N G"], slopes: Float[Tensor, "N G"]
) -> tuple[Float[Tensor, "N G"], Float[Tensor, " N"]]:
    """Integrals of ``slopes (N, G)`` from 0 to each of the points ``(N, G)``, and to 1, ``(N,)``."""
    parts = (interval_weights(points) @ slopes.double().unsqueeze(-1)).squeeze(-1).cumsum(-1)
    return parts[..., :-1], parts[..., -1]


@lru_cache(maxsize=MAX_INTERPOLATED)
@torch.inference_mode(False)
def _slopes(count: int) -> Float[Tensor, "G K"]:
    """:math:`L_j'(s_k)` of the nodes and ends, ``(G, G + 2)``."""
    nodes = 2 * gauss_legendre(count)[0].numpy() - 1
    edges = np.concatenate([[-1.0], nodes, [1.0]])
    return torch.from_numpy(legvander(nodes, count) @ legder(lagrange(edges)))
