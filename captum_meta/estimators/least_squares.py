"""KernelSHAP's constrained weighted least squares, with a prior, for budgets too large for the hypercube posterior."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def kernel_weights(
    members: Bool[Tensor, "*batch S M"], measured: Bool[Tensor, "*batch S"], players: Bool[Tensor, "*batch M"]
) -> Float[Tensor, "*batch S"]:
    """Weight each coalition by the Shapley-kernel mass of its size over the number measured of that size.

    Args:
        members: ``(*batch, S, M)`` bool.
        measured: ``(*batch, S)`` bool.
        players: ``(*batch, M)`` bool.

    Returns:
        ``(*batch, S)`` float64; 0 where not measured.
    """
    sizes = members.sum(-1)
    n_players = players.sum(-1, keepdim=True)
    counts = torch.zeros(*sizes.shape[:-1], players.shape[-1] + 1, dtype=torch.float64, device=members.device)
    counts.scatter_add_(-1, sizes, measured.double())
    mass = (n_players - 1) / (sizes * (n_players - sizes)).clamp(min=1)
    return torch.where(measured, mass / counts.gather(-1, sizes).clamp(min=1), 0.0)


def kernel_shapley_values(
    members: Bool[Tensor, "*batch S M"],
    worths: Float[Tensor, "*batch S"],
    measured: Bool[Tensor, "*batch S"],
    players: Bool[Tensor, "*batch M"],
    total: Float[Tensor, "*batch"],
    prior: Float[Tensor, "*batch M"],
    strength: Float[Tensor, "*any"],
) -> Float[Tensor, "*batch M"]:
    r"""KernelSHAP (Lundberg and Lee 2017) that shrinks towards ``prior`` instead of nothing.

    .. math:: \min_\phi \sum_S w_S (v(S) - \textstyle\sum_{i \in S} \phi_i)^2 + \sum_i \lambda_i (\phi_i - g_i)^2
        \quad \text{s.t.} \quad \sum_i \phi_i = v(N)

    Args:
        members: ``(*batch, S, M)`` bool, which players each coalition has.
        worths: ``(*batch, S)``, f of the coalition minus f of the baseline.
        measured: ``(*batch, S)`` bool, False for padding.
        players: ``(*batch, M)`` bool, False for padding.
        total: ``(*batch,)``, f(input) - f(baseline).
        prior: ``(*batch, M)``, the g of the formula, in the units of ``worths``.
        strength: ``(*batch, M)`` or a shape that broadcasts to it, the lambda of the formula, positive.

    Returns:
        ``(*batch, M)`` in the units and dtype of ``worths``; 0 for padding.
    """
    weights = kernel_weights(members, measured, players)
    design = (members & players.unsqueeze(-2)).double()
    prior = torch.where(players, prior.double(), 0.0)
    residual = torch.where(measured, worths.double() - (design @ prior.unsqueeze(-1)).squeeze(-1), 0.0)
    strength = torch.where(players, strength.double().expand_as(prior), 1.0)
    weighted = design * weights.unsqueeze(-1)
    gram = weighted.mT @ design + torch.diag_embed(strength)
    right = torch.stack([(weighted.mT @ residual.unsqueeze(-1)).squeeze(-1), players.double()], dim=-1)
    solution = torch.linalg.solve(gram, right)
    free, direction = solution[..., 0], solution[..., 1]
    missing = total.double() - prior.sum(-1) - free.sum(-1)
    step = missing / torch.where(players, direction, 0.0).sum(-1).clamp(min=1e-300)
    values = prior + free + direction * step.unsqueeze(-1)
    return torch.where(players, values, 0.0).to(worths.dtype)


def kernel_matrix(members: Bool[Tensor, "*batch S M"], strength: float) -> Float[Tensor, "*batch M S"]:
    r"""KernelSHAP on coalitions ``(*batch, S, M)`` that many rows share, as a matrix ``(*batch, M, S)`` float64.

    .. math:: P = (I - d 1^T / 1^T d) G^{-1} D^T W, \quad G = D^T W D + \lambda I, \quad d = G^{-1} 1

    with D the coalitions and W their kernel weights: P times what the worths have beyond equal shares of the total is what
    the attributions have beyond them.

    Args:
        members: which players each coalition has.
        strength: the lambda of the formula, positive.
    """
    n_players = members.shape[-1]
    everyone = torch.ones_like(members[..., 0, :])
    design = members.double()
    weights = kernel_weights(members, torch.ones_like(members[..., 0]), everyone)
    weighted = (design * weights.unsqueeze(-1)).mT
    gram = weighted @ design + strength * torch.eye(n_players, dtype=torch.float64, device=members.device)
    ones = torch.ones_like(gram[..., :1])
    free, direction = torch.linalg.solve(gram, torch.cat([weighted, ones], dim=-1)).split([members.shape[-2], 1], dim=-1)
    return free - direction * (free.sum(-2, keepdim=True) / direction.sum(-2, keepdim=True))
