"""Shapley values from coalitions that many rows share, as one matrix: the hypercube posterior with all players alike."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.estimators.hypercube import HypercubeKernel

ADDITIVE, RATES = 0.3, 4.0
"""Each player's additive part is 0.3, its diffusion rate 4 / (M + 4). Half or one and a half times as much is as good."""
_JITTER = 1e-10


def alike_kernel(signs: Float[Tensor, "P M"]) -> HypercubeKernel:
    """Covariances of pairs of coalitions ``(P, M)``, -1 for out and 1 for in, where all players are alike."""
    ones = torch.ones_like(signs[0])
    return HypercubeKernel(signs, ADDITIVE * ones, RATES / (len(ones) + RATES) * ones)


def shapley_matrix(members: Bool[Tensor, "P M"]) -> Float[Tensor, "M P"]:
    r"""The matrix from coalitions' differences to Shapley values under the hypercube posterior, with all players alike.

    .. math:: P = C K^{-1}, \qquad \phi = \bar g + P (d - \bar d), \qquad d_S = \frac{v(S) - v(N \setminus S)}{2}

    with K the covariance of the pairs and C their covariance with the Shapley values, :math:`\bar g` any guess of these,
    such as equal shares of the total, and :math:`\bar d` the differences of a game that is the sum of these.

    Args:
        members: ``(P, M)`` bool, one coalition of each pair; all players should be among them, so that efficiency holds.

    Returns:
        ``(M, P)`` float64.

    >>> shapley_matrix(torch.tensor([[True, True], [True, False]])).round(decimals=3).tolist()
    [[1.0, 1.0], [1.0, -1.0]]
    """
    kernel = alike_kernel(members.double() * 2 - 1)
    among = kernel.with_pairs(kernel.signs)
    among.diagonal().mul_(1 + _JITTER)
    return torch.cholesky_solve(kernel.with_shapley_values(), torch.linalg.cholesky(among)).mT
