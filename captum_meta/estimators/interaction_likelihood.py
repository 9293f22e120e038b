r"""How much players act and interact, as the coalitions seen tell: the most likely covariance of an interaction process.

With K the covariance of :mod:`captum_meta.estimators.interaction_process` and y what was seen, rates and amounts are those
that make smallest

.. math:: \tfrac n2 \log y^T K^{-1} y + \tfrac12 \log|K| + \text{what is expected of rates and amounts}

by a few steps of Adam, along slopes in closed form (:mod:`captum_meta.estimators.likelihood`). Logits of rates are normal
about their mean, this mean about that of equal players, and logarithms of amounts about 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.estimators.likelihood import descended, likelihood_slopes

CONSTANT = 10.0
"""c of the covariance, for worths of unit variance."""
_RATE = 4.0
"""Rates are expected at 4 / (M + 4), as for :mod:`captum_meta.estimators.design`, and a, b and d at 1."""
_SPREAD_RATES, _SPREAD_MEAN, _SPREAD_AMOUNTS = 1.5, 1.0, 2.0
"""Standard deviations of logits of rates about their mean, of this mean, and of the logarithms of a, b and d."""
_STEPS, _STEP = 30, 0.15
_MOST_RATE = 0.98
_RIDGE = 1e-6
_MAX_NUMBERS = 2**18
"""Covariances of rows that are worked on at once: so many stay in the cache."""
Parameters = tuple[Float[Tensor, "R M"], Float[Tensor, "R 3"]]
"""Rates, and the amounts a, b and d."""


@dataclass(frozen=True)
class SeenGame:
    """What parameters are fitted to; all float64.

    They are fitted as ``moved (R, M + 3)``: how far logits of rates and logarithms of amounts are from what is expected.
    """

    signs: Float[Tensor, "R P M"]  # (R, P, M) of -1 and 1, 0 where not known, or where a player does not act
    residual: Float[Tensor, "R P"]  # (R, P), 0 where not known
    known: Bool[Tensor, "R P"]  # (R, P) bool
    acting: Bool[Tensor, "R M"]  # (R, M) bool
    directed: Float[Tensor, "R P P"]  # (R, P, P), covariance of the few directions

    def parameters(self, moved: Float[Tensor, "R A"]) -> Parameters:
        """Rates ``(R, M)`` and amounts ``(R, 3)``."""
        start = torch.log(_RATE / self.acting.sum(1, keepdim=True).clamp(min=1).to(moved))
        return torch.where(self.acting, _MOST_RATE * torch.sigmoid(start + moved[:, :-3]), 0.0), moved[:, -3:].exp()

    def most_likely(self) -> Parameters:
        """By steps of Adam."""
        start = self.residual.new_zeros(len(self.acting), self.acting.shape[1] + 3)
        return self.parameters(descended(start, self.slopes, _STEPS, _STEP))

    def slopes(self, moved: Float[Tensor, "R A"]) -> Float[Tensor, "R A"]:
        """Of minus the log density of what was seen and of the parameters."""
        return self._of_likelihood(*self.parameters(moved)) + self._of_expected(moved)

    def _of_expected(self, moved: Float[Tensor, "R A"]) -> Float[Tensor, "R A"]:
        rates, count = torch.where(self.acting, moved[:, :-3], 0.0), self.acting.sum(1, keepdim=True).clamp(min=1)
        mean = rates.sum(1, keepdim=True) / count
        of_rates = (rates - mean) / _SPREAD_RATES**2 + mean / (count * _SPREAD_MEAN**2)
        return torch.cat([torch.where(self.acting, of_rates, 0.0), moved[:, -3:] / _SPREAD_AMOUNTS**2], dim=1)

    def _of_likelihood(self, rates: Float[Tensor, "R M"], amounts: Float[Tensor, "R 3"]) -> Float[Tensor, "R A"]:
        """Along logits of rates and logarithms of amounts."""
        signs, squares = self.signs, rates.square()
        shrink = torch.exp(-rates.log1p().sum(-1, keepdim=True))  # 1 / prod (1 + rho)
        level = torch.log1p(-squares).sum(-1, keepdim=True) / 2 + shrink.log()
        joint = ((signs * rates.atanh().unsqueeze(1)) @ signs.mT).add_(level.unsqueeze(-1)).exp_()
        sums = (signs * rates.unsqueeze(1)) @ signs.mT
        mains, pairs, along = amounts.unbind(1)
        mains, pairs, along = shrink * mains.unsqueeze(1), shrink * pairs.unsqueeze(1), along.reshape(-1, 1, 1)
        covariance = (sums * (pairs / 2).unsqueeze(-1)).add_(mains.unsqueeze(-1)).mul_(sums)
        covariance.add_(joint).addcmul_(along, self.directed)
        covariance.add_((CONSTANT - pairs / 2 * squares.sum(-1, keepdim=True)).unsqueeze(-1))
        among_known(covariance, self.known).diagonal(dim1=-2, dim2=-1).mul_(1 + _RIDGE)
        slope = likelihood_slopes(covariance, self.residual, self.known)
        of_waves = torch.linalg.vecdot(slope.flatten(1), self.directed.flatten(1)).unsqueeze(-1) * along.squeeze(-1)
        of_sums, of_products, of_joint = (self._forms(part) for part in (slope, sums.mul_(slope), joint.mul_(slope)))
        of_products = of_products - rates * slope.sum((1, 2)).unsqueeze(-1)
        of_level = joint.sum((1, 2)).unsqueeze(-1)
        of_mains = mains * (rates * of_sums).sum(-1, keepdim=True)
        of_pairs = pairs * (rates * of_products).sum(-1, keepdim=True) / 2
        of_rates = mains * of_sums + pairs * of_products - (of_mains + of_pairs + of_level) / (1 + rates)
        of_rates = of_rates + (of_joint - rates * of_level) / (1 - squares)
        return torch.cat([of_rates * rates * (1 - rates / _MOST_RATE), of_mains, of_pairs, of_waves], dim=1)

    def _forms(self, matrices: Float[Tensor, "R P P"]) -> Float[Tensor, "R M"]:
        """Quadratic forms of each player's signs, ``(R, M)``."""
        return ((matrices @ self.signs) * self.signs).sum(1)


def most_likely(
    signs: Float[Tensor, "R P M"],
    residual: Float[Tensor, "R P"],
    known: Bool[Tensor, "R P"],
    acting: Bool[Tensor, "R M"],
    waves: Float[Tensor, "R P Q"],
) -> Parameters:
    """Rates ``(R, M)`` and amounts ``(R, 3)`` for what was seen, ``residual (R, P)``; some rows after others.

    ``waves`` are those of the few directions, whose products are their covariance.
    """
    step = max(1, _MAX_NUMBERS // signs.shape[1] ** 2)
    signs, directed = signs * known.unsqueeze(-1), waves @ waves.mT
    rows = zip(*(part.split(step) for part in (signs, residual, known, acting, directed)), strict=True)
    rates, amounts = zip(*(SeenGame(*some).most_likely() for some in rows), strict=True)
    return torch.cat(rates), torch.cat(amounts)


def among_known(covariance: Float[Tensor, "R P P"], known: Bool[Tensor, "R P"]) -> Float[Tensor, "R P P"]:
    """Covariance of what is known, and ones on the diagonal for the rest, ``(R, P, P)``, in place."""
    covariance.masked_fill_(~(known.unsqueeze(-1) & known.unsqueeze(-2)), 0.0)
    covariance.diagonal(dim1=-2, dim2=-1).add_(~known)
    return covariance
