"""Bayesian linear regression in which some coefficients are shared by all players and some are each player's own."""

from __future__ import annotations

import torch
from torch import Tensor


def solve(shared: Tensor, own: Tensor, target: Tensor, variance: Tensor, players: Tensor) -> tuple[Tensor, Tensor]:
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
    blocks = by_player @ by_player.mT + torch.diag_embed(variance.mT)
    factor = torch.linalg.cholesky(blocks)
    features = shared.transpose(-3, -2)
    solved = torch.cholesky_solve(torch.cat([features, target.mT.unsqueeze(-1)], dim=-1), factor)
    solved_features, solved_target = solved[..., :-1], solved[..., -1]
    eye = torch.eye(shared.shape[-1], dtype=shared.dtype, device=shared.device)
    gram = eye + (features.mT @ solved_features).sum(-3)
    moment = (features * solved_target.unsqueeze(-1)).sum((-3, -2))
    gram_factor = torch.linalg.cholesky(gram)
    weights = torch.cholesky_solve(moment.unsqueeze(-1), gram_factor)
    dual = (solved_target - (solved_features @ weights.unsqueeze(-3)).squeeze(-1)).mT
    diagonal = torch.cholesky_inverse(factor).diagonal(dim1=-2, dim2=-1).mT
    left = solved_features.transpose(-3, -2)
    scaled = left / diagonal.unsqueeze(-1)
    inner = gram.unsqueeze(-3) - left.mT @ scaled
    correction = torch.linalg.solve(inner, scaled.mT @ dual.unsqueeze(-1))
    left_out = dual / diagonal + (scaled @ correction).squeeze(-1)
    return torch.where(players, dual, 0.0), torch.where(players, left_out, 0.0)


def fit_coefficients(own: Tensor, n_players: int) -> Tensor:
    """Coefficients ``(*batch, M, d)`` for ``n_players``: players that the support set never had get none."""
    own = own[..., :n_players, :]
    return torch.nn.functional.pad(own, (0, 0, 0, n_players - own.shape[-2]))
