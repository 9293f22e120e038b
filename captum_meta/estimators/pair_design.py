r"""Which coalitions tell most about interactions of pairs, for a row whose own rates are known from a few of them.

Interactions of pairs are the game's even part (SII, k-SII, FSII), of which a coalition and its complement tell the sum
:math:`e(S) = v(S) + v(\bar S)`. Under the covariance of :mod:`captum_meta.estimators.interaction_process` even and odd part
are independent. So the next sum to see is the one that takes most from the summed variance of all pairs,

.. math:: \sum_{i < j} \frac{\mathrm{Cov}(I_{ij}, e(S))^2}{\mathrm{Var}\, e(S)}

given those seen, again and again (:mod:`captum_meta.estimators.design` does the same for Shapley values, with all players
alike). No worth enters but through the rates.
"""

from __future__ import annotations

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from captum_meta.estimators.conditioning import cholesky_factor
from captum_meta.estimators.interaction_likelihood import CONSTANT
from captum_meta.estimators.interactions import InteractionRule

_LEAST_VARIANCE = 1e-9
_TIES = 1e-4
"""Players of equal rates make candidates equal: a factor so close to 1 decides."""


def telling_sums(
    rates: Float[Tensor, "R M"], amounts: Float[Tensor, "R A"], signs: Float[Tensor, "R P M"], n_seen: int, count: int
) -> Int64[Tensor, "R count"]:
    """Indices of the ``count`` sums to see next among those of ``signs (R, P, M)``, of which the first are seen.

    Args:
        rates, amounts: of the row's covariance, read to quarters of a logit; the part along few directions is left out.
        signs: coalitions of -1 and 1, one of each pair, 0 for players that do not act; float64.
        n_seen: so many are known.
        count: at most as many as there are beside them.
    """
    rates, amounts = _in_steps(rates.logit()).sigmoid(), _in_steps(amounts.log()).exp()
    covariance, with_pairs = _even(rates, amounts, signs), _with_pairs(rates, amounts, signs)
    favour = 1 + _TIES * torch.rand(signs.shape[1], generator=Generator().manual_seed(1), dtype=torch.float64)
    favour = favour.to(signs.device)
    variance = covariance.diagonal(dim1=1, dim2=2)
    least = _LEAST_VARIANCE * variance.amax(1, keepdim=True)
    root = cholesky_factor(covariance[:, :n_seen, :n_seen].clone())
    factor = torch.linalg.solve_triangular(root, covariance[:, :n_seen], upper=False)
    of_seen = torch.linalg.solve_triangular(root, with_pairs[..., :n_seen].mT, upper=False)
    with_pairs = with_pairs - of_seen.mT @ factor
    variance = (variance - factor.square().sum(1)).clamp(min=0)
    rows, free = torch.arange(len(signs), device=signs.device), torch.ones_like(variance, dtype=torch.bool)
    free[:, :n_seen] = False
    found = []
    for _ in range(count):
        gain = with_pairs.square().sum(1) / variance.clamp(min=least) * favour
        best = torch.where(free, gain, -1.0).argmax(1)
        free[rows, best] = False
        known = (factor[rows, :, best].unsqueeze(1) @ factor).squeeze(1)
        scale = variance[rows, best].unsqueeze(1).clamp(min=least).sqrt()
        row = (covariance[rows, best] - known) / scale
        with_pairs = with_pairs - (with_pairs[rows, :, best] / scale).unsqueeze(2) * row.unsqueeze(1)
        variance = (variance - row.square()).clamp(min=0)
        factor = torch.cat([factor, row.unsqueeze(1)], dim=1)
        found.append(best)
    return torch.stack(found, dim=1)


def _in_steps(numbers: Tensor) -> Tensor:
    """Rounded to quarters: the same on every machine, and in every batch, which rounding of f makes a little different."""
    return (4 * numbers).round() / 4


def _even(
    rates: Float[Tensor, "R M"], amounts: Float[Tensor, "R A"], signs: Float[Tensor, "R P M"]
) -> Float[Tensor, "R P P"]:
    """Covariance of sums over two."""
    weighted, squares = signs * rates.unsqueeze(1), rates.square().sum(1)[:, None, None]
    shrink = torch.exp(-rates.log1p().sum(1))[:, None, None]
    level = torch.log1p(-rates.square()).sum(1)[:, None, None] / 2
    alike = (signs * rates.atanh().unsqueeze(1)) @ signs.mT
    pairs = ((weighted @ signs.mT).square() - squares) / 2
    return 2 * (shrink * (alike.cosh() * level.exp() + amounts[:, 1, None, None] * pairs) + CONSTANT)


def _with_pairs(
    rates: Float[Tensor, "R M"], amounts: Float[Tensor, "R A"], signs: Float[Tensor, "R P M"]
) -> Float[Tensor, "R Q P"]:
    """Covariance of the SII of all pairs with sums over two."""
    n_players = rates.shape[1]
    scaled, log_norm = (signs * rates.unsqueeze(1)).mT, rates.log1p().sum(1)[:, None, None]
    first, second = torch.combinations(torch.arange(n_players, device=rates.device)).T
    total = 4 * amounts[:, 1, None, None] * torch.exp(-log_norm) * scaled[:, first] * scaled[:, second]
    nodes, weights = InteractionRule.of("SII", n_players).pairs
    for t, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
        factors = 1 + (2 * t - 1) * scaled
        gains = 2 * scaled / factors
        products = weight * (factors.log().sum(1, keepdim=True) - log_norm).exp()
        total = total + products * gains[:, first] * gains[:, second]
    return total
