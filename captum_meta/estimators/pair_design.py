r"""Which coalitions tell most about interactions of pairs, for a row whose own rates are known from a few of them.

Interactions of pairs are the game's even part (SII, k-SII, FSII), of which a coalition and its complement tell the sum
:math:`e(S) = v(S) + v(\bar S)`. Under the covariance of :mod:`captum_meta.estimators.interaction_process` even and odd part
are independent. So the next sum to see is the one that takes most from the summed variance of all pairs,

.. math:: \sum_{i < j} \frac{\mathrm{Cov}(I_{ij}, e(S))^2}{\mathrm{Var}\, e(S)}

given those seen, again and again (:mod:`captum_meta.estimators.telling`). No worth enters but through the rates.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Generator, Tensor

from captum_meta.estimators.interaction_likelihood import CONSTANT
from captum_meta.estimators.interactions import InteractionRule
from captum_meta.estimators.telling import Beliefs, favours, in_steps, most_telling


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
    even = _EvenPart(in_steps(rates.logit()).sigmoid(), in_steps(amounts[:, 1].log()).exp())
    favour = favours(signs.shape[1], Generator().manual_seed(1)).to(signs.device)[n_seen:]
    seen, candidates = signs[:, :n_seen], signs[:, n_seen:]
    before = Beliefs(even.among(candidates, candidates), even.with_pairs(candidates))
    beliefs = before.given(even.among(seen, seen), even.among(seen, candidates), even.with_pairs(seen))
    return n_seen + most_telling(beliefs, torch.ones_like(candidates[..., 0], dtype=torch.bool), favour, count)


@dataclass(frozen=True)
class _EvenPart:
    """Sums of a coalition and its complement over two, and the SII of all pairs of players.

    Attributes:
        rates: how much each player interacts.
        of_pairs: how much more there is of pairs than of a product of all orders.
    """

    rates: Float[Tensor, "R M"]
    of_pairs: Float[Tensor, " R"]

    def among(self, first: Float[Tensor, "R A M"], second: Float[Tensor, "R B M"]) -> Float[Tensor, "R A B"]:
        rates, squares = self.rates.unsqueeze(1), self.rates.square().sum(1)[:, None, None]
        shrink = torch.exp(-self.rates.log1p().sum(1))[:, None, None]
        level = torch.log1p(-self.rates.square()).sum(1)[:, None, None] / 2
        alike = (first * rates.atanh()) @ second.mT
        pairs = (((first * rates) @ second.mT).square() - squares) / 2
        return 2 * (shrink * (alike.cosh() * level.exp() + self.of_pairs[:, None, None] * pairs) + CONSTANT)

    def with_pairs(self, signs: Float[Tensor, "R P M"]) -> Float[Tensor, "R P Q"]:
        n_players = self.rates.shape[1]
        scaled, log_norm = (signs * self.rates.unsqueeze(1)).mT, self.rates.log1p().sum(1)[:, None, None]
        first, second = torch.combinations(torch.arange(n_players, device=signs.device)).T
        total = 4 * self.of_pairs[:, None, None] * torch.exp(-log_norm) * scaled[:, first] * scaled[:, second]
        nodes, weights = InteractionRule.of("SII", n_players).pairs
        for t, weight in zip(nodes.tolist(), weights.tolist(), strict=True):
            factors = 1 + (2 * t - 1) * scaled
            gains = 2 * scaled / factors
            products = weight * (factors.log().sum(1, keepdim=True) - log_norm).exp()
            total = total + products * gains[:, first] * gains[:, second]
        return total.mT
