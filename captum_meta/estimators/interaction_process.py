r"""Interactions of the game expected from the coalitions seen: a Gaussian process over all coalitions, fitted to each row.

Pairs of players are the game's even part (SII, k-SII, FSII) or read both parts (STII), so that here coalitions are seen one
by one. With s, t in {-1, 1}^M for "in" and "out", and :math:`z_i = \rho_i s_i t_i`, the covariance of their worths is

.. math:: c + \frac{\prod_i (1 + z_i) + a \sum_i z_i + b \sum_{i < j} z_i z_j}{\prod_i (1 + \rho_i)} + d\, k_w(s, t).

``rho`` in (0, 1) is how much a player acts, and interacts; ``a`` and ``b`` how much more there is of main effects and of
pairs than of a product of all orders; ``d`` how much the game depends on few directions, as a saturated probability does
(:mod:`captum_meta.estimators.multi_index`, both parts). All are fitted to what was seen, by its likelihood and by what is
expected of them. A posterior mean is a sum of products and waves, whose derivatives along the diagonal of the multilinear
extension, and with them all indices of :mod:`captum_meta.estimators.interactions`, are closed-form.

Kernels that multiply over features give Shapley values in closed form (Chau, Hu, Gonzalez and Sejdinovic 2022).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta.estimators.conditioning import cholesky_factor
from captum_meta.estimators.exact import all_coalitions
from captum_meta.estimators.interaction_likelihood import CONSTANT, among_known, most_likely
from captum_meta.estimators.interactions import InteractionRule
from captum_meta.estimators.likelihood import standardised
from captum_meta.estimators.multi_index import FullWaves

_FITTED = 256
"""Coalitions that the parameters are fitted to; the posterior is given all."""
_TINY = 1e-30


@dataclass(frozen=True)
class InteractionKernel:
    """The module's covariance without its constant; all float64."""

    rates: Float[Tensor, "R M"]  # (R, M)
    amounts: Float[Tensor, "R 3"]  # (R, 3): a, b and d of the formula
    waves: FullWaves

    @cached_property
    def log_norm(self) -> Float[Tensor, "R 1 1"]:
        """``(R, 1, 1)``."""
        return self.rates.log1p().sum(-1)[:, None, None]

    def between(self, first: Float[Tensor, "R A M"], second: Float[Tensor, "R B M"]) -> Float[Tensor, "R A B"]:
        """``(R, A, B)``, of coalitions ``(R, A, M)`` and ``(R, B, M)`` of -1 and 1."""
        rates = self.rates.unsqueeze(1)
        alike = (first * rates.atanh()) @ second.mT + 0.5 * torch.log1p(-rates.square()).sum(-1, keepdim=True)
        sums = (first * rates) @ second.mT
        pairs = (sums.square() - rates.square().sum(-1, keepdim=True)) / 2
        main, both, directed = self.amounts[:, :, None, None].unbind(1)
        joint = torch.exp(alike - self.log_norm) + torch.exp(-self.log_norm) * (main * sums + both * pairs)
        return joint + directed * (self.waves.at(first) @ self.waves.at(second).mT)


class InteractionProcess:
    """The game as expected from the worths of some coalitions.

    Args:
        members: ``(R, P, M)`` bool, with everyone and no one among them.
        worths: ``(R, P)``.
        known: ``(R, P)`` bool, False for padding.
        acting: ``(R, M)`` bool, False for players without any effect, and for padding.
        directions: ``(R, D, M)``, along which the worths are expected to change; zeros where nothing is.

    Attributes:
        kernel: the fitted covariance.
        log_likelihood: ``(R,)``, log density of the worths at the most likely amplitude of the covariance, but
            for a number that depends on how many they are alone.
    """

    def __init__(
        self,
        members: Bool[Tensor, "R P M"],
        worths: Float[Tensor, "R P"],
        known: Bool[Tensor, "R P"],
        acting: Bool[Tensor, "R M"],
        directions: Float[Tensor, "R D M"],
    ) -> None:
        self._acting, self._known = acting, known
        self._signs = torch.where(acting.unsqueeze(1), members.double() * 2 - 1, 0.0)
        residual, self._middle, self._unit = standardised(worths, known)
        waves = FullWaves(torch.where(acting.unsqueeze(1), directions.double(), 0.0))
        self.kernel = _fitted(self._signs, residual, known, acting, waves)
        factor = cholesky_factor(among_known(self.kernel.between(self._signs, self._signs) + CONSTANT, known))
        weights = torch.cholesky_solve(residual.unsqueeze(-1), factor).squeeze(-1)
        self._weights = torch.where(known, weights, 0.0)
        count, surprise = known.sum(1), (residual * self._weights).sum(1).clamp(min=_TINY)
        volume = factor.diagonal(dim1=-2, dim2=-1).log().sum(1)
        self.log_likelihood = -count * ((surprise / count).log() / 2 + self._unit.squeeze(1).log()) - volume

    def all_worths(self) -> Float[Tensor, "R S"]:
        """Expected f of all coalitions, ``(R, 2**M)`` float64, ordered as :func:`captum_meta.estimators.all_coalitions`.

        Products and waves of all are products of those of one half of the players with those of the other.
        """
        n_players, rates = self._acting.shape[1], self.kernel.rates
        signs = all_coalitions(n_players, rates.device).double() * 2 - 1
        in_first = torch.arange(n_players, device=rates.device) < n_players // 2
        step = 2 ** (n_players // 2)
        first, second = signs[:step] * in_first, signs[::step] * ~in_first
        alike, scaled = rates.atanh().unsqueeze(1) * self._signs, rates.unsqueeze(1) * self._signs
        weighted, norm = self._weights.unsqueeze(1), torch.exp(-self.kernel.log_norm)
        table = torch.exp(second @ alike.mT) @ (torch.exp(first @ alike.mT) * weighted).mT
        table = table * norm * (1 - rates.square()).prod(1).sqrt()[:, None, None]
        main, both, directed = self.kernel.amounts[:, :, None, None].unbind(1)
        of_waves = (weighted @ self.kernel.waves.at(self._signs)).squeeze(1)
        table = table + directed * self.kernel.waves.at_sums(of_waves, first, second)
        squares = (scaled * self._weights.unsqueeze(-1)).mT @ scaled
        squares = squares - torch.diag_embed(squares.diagonal(dim1=1, dim2=2))
        of_orders = signs @ (norm * main * (weighted @ scaled)).mT
        of_orders = of_orders.squeeze(-1) + ((signs @ (norm * both / 2 * squares)) * signs).sum(-1)
        expected = table.flatten(1) + of_orders + CONSTANT * self._weights.sum(1, keepdim=True)
        return expected * self._unit + self._middle

    def interactions(self, rule: InteractionRule) -> Float[Tensor, "R M M"]:
        """Pairs off the diagonal and main effects on it, ``(R, M, M)`` float64."""
        n_rows, n_players = self._acting.shape
        main = self._signs.new_zeros(n_rows, n_players)
        pairs = self._signs.new_zeros(n_rows, n_players, n_players)
        for t, weight in zip(*(part.tolist() for part in rule.main), strict=True):
            main += weight * self._slopes(t)[0]
        for t, weight in zip(*(part.tolist() for part in rule.pairs), strict=True):
            pairs += weight * self._slopes(t)[1]
        return rule.joined(main * self._unit, pairs * self._unit.unsqueeze(-1))

    def _slopes(self, t: float) -> tuple[Float[Tensor, "R M"], Float[Tensor, "R M M"]]:
        """First ``(R, M)`` and second ``(R, M, M)`` derivatives of the multilinear extension at t, per unit of spread."""
        position, rates = 2 * t - 1, self.kernel.rates
        scaled = rates.unsqueeze(1) * self._signs  # (R, P, M)
        factors = 1 + position * scaled
        products = (factors.log().sum(-1) - self.kernel.log_norm.squeeze(-1)).exp() * self._weights
        gains = 2 * scaled / factors
        norm = torch.exp(-self.kernel.log_norm)
        main_amount, pair_amount, directed = self.kernel.amounts[:, :, None, None].unbind(1)
        weighted = self._weights.unsqueeze(1)
        first = products.unsqueeze(1) @ gains + norm * main_amount * 2 * (weighted @ scaled)
        others = scaled.sum(-1, keepdim=True) - scaled
        first = first + norm * pair_amount * 2 * position * (weighted @ (scaled * others))
        second = (gains * products.unsqueeze(-1)).mT @ gains
        second = second + norm * pair_amount * 4 * (scaled * self._weights.unsqueeze(-1)).mT @ scaled
        of_waves = directed.squeeze(-1) * (weighted @ self.kernel.waves.at(self._signs)).squeeze(1)
        wave_first, wave_second = self.kernel.waves.slopes(of_waves, t)
        return first.squeeze(1) + wave_first, second + wave_second


def _fitted(
    signs: Float[Tensor, "R P M"],
    residual: Float[Tensor, "R P"],
    known: Bool[Tensor, "R P"],
    acting: Bool[Tensor, "R M"],
    waves: FullWaves,
) -> InteractionKernel:
    """The kernel of largest density of what was seen, given what is expected of it; from some of the coalitions."""
    if signs.shape[1] > _FITTED:
        chosen = _some(signs.shape[1], 2 * acting.shape[1] + 2).to(signs.device)
        signs, residual, known = signs[:, chosen], residual[:, chosen], known[:, chosen]
    return InteractionKernel(*most_likely(signs, residual, known, acting, waves.at(signs)), waves)


def _some(count: int, first: int) -> Int64[Tensor, " chosen"]:
    """The first coalitions, which are the border's, and others evenly, in pairs."""
    first = min(first + first % 2, _FITTED // 2)
    pairs = torch.linspace(first // 2, count // 2 - 1, (_FITTED - first) // 2).long()
    return torch.cat([torch.arange(first), torch.stack([2 * pairs, 2 * pairs + 1], dim=1).flatten()])
