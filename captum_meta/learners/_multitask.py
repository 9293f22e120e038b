"""Bayesian linear regression in which some coefficients are shared by all players and some are each player's own."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def solve(
    shared: Tensor, own: Tensor, target: Tensor, variance: Tensor, players: Tensor
) -> tuple[Float[Tensor, "*batch K M"], Float[Tensor, "*batch K M"]]:
    r"""Dual coefficients :math:`C^{-1} r` and the residuals of rows left out one at a time, ``(*batch, K, M)`` both.

    .. math:: r_{ni} = \psi_{ni} \cdot w + \chi_{ni} \cdot u_i + \epsilon_{ni}, \qquad w, u_i \sim N(0, I)

    :math:`C = \Psi \Psi^T + S` with S one block for each player, so C is never formed: Woodbury's identity needs S and a
    matrix of the shared dimensions alone. The left-out residuals are :math:`(C^{-1})_{nn}^{-1} (C^{-1} r)_n`, where n stands
    for all players of a row.

    Args:
        shared: psi, ``(*batch, K, M, D)``.
        own: chi, ``(*batch, K, M, d)``.
        target: r, ``(*batch, K, M)``.
        variance: of epsilon, same shape.
        players: ``(*batch, K, M)`` bool, False for padding.
    """
    by_player = own.transpose(-3, -2)
    factor = torch.linalg.cholesky(by_player @ by_player.mT + torch.diag_embed(variance.mT))
    inverse = torch.cholesky_inverse(factor)
    features = shared.transpose(-3, -2)
    solved_features, solved_target = inverse @ features, (inverse @ target.mT.unsqueeze(-1)).squeeze(-1)
    eye = torch.eye(shared.shape[-1], dtype=shared.dtype, device=shared.device)
    flat = features.flatten(-3, -2).mT
    gram = eye + flat @ solved_features.flatten(-3, -2)
    gram_factor = torch.linalg.cholesky(gram)
    weights = torch.cholesky_solve(flat @ solved_target.flatten(-2).unsqueeze(-1), gram_factor)
    dual = (solved_target - (solved_features @ weights.unsqueeze(-3)).squeeze(-1)).mT
    left_out = _left_out(solved_features.transpose(-3, -2), inverse.diagonal(dim1=-2, dim2=-1).mT, gram, gram_factor, dual)
    return torch.where(players, dual, 0.0), torch.where(players, left_out, 0.0)


def _left_out(left: Tensor, diagonal: Tensor, gram: Tensor, factor: Tensor, dual: Tensor) -> Tensor:
    """Each row's block D - L G^-1 L^T of the inverse, solved as it is or, of more players than features, by Woodbury."""
    if left.shape[-2] <= left.shape[-1]:
        half = torch.linalg.solve_triangular(factor.mT, left.flatten(-3, -2), upper=True, left=False)
        half = half.unflatten(-2, left.shape[-3:-1])
        blocks = torch.linalg.cholesky(torch.diag_embed(diagonal) - half @ half.mT)
        return torch.cholesky_solve(dual.unsqueeze(-1), blocks).squeeze(-1)
    scaled = left / diagonal.unsqueeze(-1)
    inner = gram.unsqueeze(-3) - left.mT @ scaled
    correction = torch.linalg.solve(inner, scaled.mT @ dual.unsqueeze(-1))
    return dual / diagonal + (scaled @ correction).squeeze(-1)
