"""Shapley values of the expected game, given the coalitions seen: Gaussian-process regression on the hypercube.

KernelSHAP treats whatever is not additive as noise. But the worths of a deterministic game carry no noise: what is not
additive is interaction, and coalitions that differ in few players interact alike. A Gaussian process over coalitions with
the diffusion kernel (Kondor and Lafferty 2002), one diffusion rate per player, expresses this; it passes through every worth
seen, so it is exact when all are, and the Shapley values of its mean are linear in the worths and closed-form.

Shapley values depend on a game's odd part alone, f(S) minus f of the complement of S, and under this kernel the odd part is
independent of the even one. So coalitions come in pairs with their complements, and a pair is one observation of the odd
part. With s, t in {-1, 1}^M for "in" and "out", its prior covariance is

    k(s, t) = sum_i tau_i s_i t_i + [odd part of prod_i (1 + rho_i s_i t_i) - sum_i rho_i s_i t_i] / prod_i (1 + rho_i):

``tau`` is the prior variance of additive effects, and ``rho`` in [0, 1) how much a player interacts (0: a player with no
interactions). Both come from the explainer; only their ratios matter.

The share of the game along few directions (:mod:`captum_meta.estimators.multi_index`) differs from row to row: none,
or 2 or 50 times as much as on the rest. The answers of all three are averaged by the likelihood of what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property, lru_cache
from math import ceil, log

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta._numbers import TINY
from captum_meta.estimators.conditioning import SHARES, Factor, Given, conditioned
from captum_meta.estimators.multi_index import MultiIndexWaves
from captum_meta.estimators.pairs import CoalitionPairs, HypercubePrior
from captum_meta.estimators.quadrature import gauss_legendre

_MAX_NODES = 12
_ROWS = 64
"""Rows of a covariance that are made at once."""
_LOG_PRIOR = (0.0, 0.0, -1.5)
"""Log prior probabilities of the shares of waves."""
_TEMPER = 0.5
"""Power of the likelihood, below 1 because the covariances are guesses of which none is true."""


@dataclass(frozen=True)
class HypercubeKernel:
    """The module's covariance without the few directions, of pairs with each other and with Shapley values.

    Rows of signs that are 0 stand for nothing: they have no covariance with any pair.
    """

    signs: Float[Tensor, "*batch P M"]  # (*batch, P, M)
    additive: Float[Tensor, "*batch M"]  # (*batch, M), tau
    rates: Float[Tensor, "*batch M"]  # (*batch, M), rho

    @cached_property
    def _log_norm(self) -> Float[Tensor, "*batch"]:
        return self.rates.log1p().sum(-1)

    @cached_property
    def _linear(self) -> Float[Tensor, "*batch M"]:
        """tau minus the additive part of the product."""
        return self.additive - torch.exp(-self._log_norm).unsqueeze(-1) * self.rates

    @cached_property
    def _nodes(self) -> tuple[Float[Tensor, " Q"], Float[Tensor, " Q"]]:
        nodes, weights = gauss_legendre(min(_MAX_NODES, ceil(self.signs.shape[-1] / 2)))
        return nodes.to(self.signs), weights.to(self.signs)

    def with_pairs(self, others: Float[Tensor, "*batch R M"]) -> Float[Tensor, "*batch R P"]:
        """``(*batch, R, P)``, of the pairs ``(*batch, R, M)`` with these."""
        return self._between(others, self.signs)

    def among_pairs(self) -> Float[Tensor, "*batch P P"]:
        """``(*batch, P, P)``, of these pairs with each other: the lower triangle, made of rows that stay in the cache."""
        n_pairs = self.signs.shape[-2]
        found = self.rates.new_zeros(*self.signs.shape[:-1], n_pairs)
        for start in range(0, n_pairs, _ROWS):
            rows, until = slice(start, start + _ROWS), slice(0, start + _ROWS)
            found[..., rows, until] = self._between(self.signs[..., rows, :], self.signs[..., until, :])
        return found

    def _between(self, one: Float[Tensor, "*batch R M"], two: Float[Tensor, "*batch S M"]) -> Float[Tensor, "*batch R S"]:
        alike = self.rates.atanh()
        level = (alike.sum(-1) + log(2))[..., None, None]
        together = ((one * alike.unsqueeze(-2)) @ two.mT).sub_(level)
        covariance = (one * self._linear.unsqueeze(-2)) @ two.mT
        down = (-2 * level - together).exp_()
        return covariance.add_(together.exp_()).sub_(down)  # fresh memory takes longer than the arithmetic

    def with_shapley_values(self) -> Float[Tensor, "*batch P M"]:
        """``(*batch, P, M)``: the Shapley value of player i in the game t -> k(s, t), by its multilinear extension."""
        nodes, weights = self._nodes
        scaled = self.rates.unsqueeze(-2) * (2 * nodes - 1).unsqueeze(-1)
        logs = self.signs @ scaled.atanh().mT + 0.5 * torch.log1p(-scaled.square()).sum(-1).unsqueeze(-2)
        products = torch.exp(logs - self._log_norm[..., None, None])
        leave_out = 2 * self.rates.unsqueeze(-2) / (1 - scaled.square()) * weights.unsqueeze(-1)
        joint = self.signs * (products @ leave_out) - products @ (leave_out * scaled)
        return joint + 2 * self.signs * self._linear.unsqueeze(-2)

    def of_shapley_values(self) -> Float[Tensor, "*batch M"]:
        """``(*batch, M)``: variance of each Shapley value before anything was seen."""
        products, weights = (part.to(self.signs) for part in _products_of_nodes(len(self._nodes[0])))
        factors = 1 + self.rates.unsqueeze(-2) * products.unsqueeze(-1)
        wholes = weights * (factors.log().sum(-1) - self._log_norm.unsqueeze(-1)).exp()
        return 4 * (self.rates * (wholes.unsqueeze(-1) / factors).sum(-2) + self._linear)


@lru_cache(maxsize=16)
@torch.inference_mode(False)
def _products_of_nodes(count: int) -> tuple[Float[Tensor, " A"], Float[Tensor, " A"]]:
    """Products of any two values of 2 t - 1 at Gauss's nodes, each once, and their weights."""
    nodes, weights = gauss_legendre(count)
    means = 2 * nodes - 1
    products, places = (means.unsqueeze(-1) * means).flatten().round(decimals=12).unique(return_inverse=True)
    return products, torch.zeros_like(products).index_add(0, places, (weights.unsqueeze(-1) * weights).flatten())


class HypercubePosterior:
    """Posterior mean and variance of the game, given the worths seen; differentiable in all but the coalitions.

    Args:
        pairs: the coalitions seen; of P pairs and M players.
        prior: the game's prior.
        precision: of all that is computed; by default that of the differences, which the answers have in any case.
    """

    def __init__(self, pairs: CoalitionPairs, prior: HypercubePrior, precision: torch.dtype | None = None) -> None:
        self._players, self._dtype = pairs.players, pairs.differences.dtype
        precision = precision or self._dtype
        pairs, prior = pairs.to(dtype=precision).with_everyone(), prior.to(dtype=precision).among(pairs.players)
        self._known, self._signs, self._prior = pairs.measured, pairs.signs(), prior.mean
        rows, residual = pairs.measured.unsqueeze(-1), pairs.residual(self._signs, prior.mean)
        self._kernel = kernel = HypercubeKernel(self._signs, prior.additive, prior.rates)
        self._waves = MultiIndexWaves(prior.directions)
        among = kernel.among_pairs()
        self._size = among[..., :1, :1].sqrt()
        self._at_pairs = self._size * self._waves.at(self._signs)
        self._of_waves = self._size * self._waves.shapley_values()
        among.diagonal(dim1=-2, dim2=-1).add_((~pairs.measured).to(among))
        values = torch.where(rows, kernel.with_shapley_values(), 0.0)
        self._given = conditioned(among, residual.unsqueeze(-1), values, self._at_pairs, self._of_waves)
        n_pairs = pairs.measured.sum(-1, keepdim=True)
        self._amplitudes = torch.stack([given.surprise for given in self._given], dim=-1) / n_pairs
        volumes = torch.stack([given.log_volume() for given in self._given], dim=-1)
        likelihood = -0.5 * n_pairs * self._amplitudes.clamp(min=TINY).log() - volumes
        self._weights = (_TEMPER * likelihood + torch.tensor(_LOG_PRIOR).to(likelihood)).softmax(-1)

    def shapley_values(self) -> Float[Tensor, "*batch M"]:
        """``(*batch, M)`` in the units and dtype of ``differences``; they sum to ``total`` up to rounding; 0 for padding."""
        return self._answer(self._prior, self._corrections)

    def shapley_values_of_half(self) -> Float[Tensor, "*batch M"]:
        """The same, had only the first half of the pairs been seen, with the shares' weights as they are."""
        half = (self._known.shape[-1] + 1) // 2
        firsts = {key: factor.first(half) for key, factor in self._factors.items()}
        parts = [Given(given.share, firsts[id(given.base)]) for given in self._given]
        corrections = [given.correction_from(given.base.residual) for given in parts]
        return self._answer(self._prior, torch.stack(corrections, dim=-1))

    def shapley_values_from(self, prior: Float[Tensor, "*batch M"]) -> Float[Tensor, "*batch M"]:
        """The same, had another ``prior (*batch, M)`` been expected, with the shares' weights as they are."""
        prior = torch.where(self._players, prior.to(self._prior), 0.0)
        moved = self._signs @ (prior - self._prior).unsqueeze(-1) / 2
        left = {key: factor.residual - factor.whitened(moved) for key, factor in self._factors.items()}
        corrections = [given.correction_from(left[id(given.base)]) for given in self._given]
        return self._answer(prior, torch.stack(corrections, dim=-1))

    def shapley_variance(self) -> Float[Tensor, "*batch M"]:
        """Variance of each Shapley value given the worths seen, ``(*batch, M)`` in squared units of ``differences``.

        The amplitude of the covariance is that of greatest likelihood.
        """
        before, of_waves = self._kernel.of_shapley_values(), self._of_waves.square().sum(-2)
        left = [before.add(of_waves, alpha=s) - given.known() for s, given in zip(SHARES, self._given, strict=True)]
        within = self._amplitudes.unsqueeze(-2) * torch.stack(left, dim=-1).clamp(min=0)
        between = self._mixed((self._corrections - self._mixed(self._corrections).unsqueeze(-1)).square())
        return torch.where(self._players, self._mixed(within) + between, 0.0).to(self._dtype)

    def late_surprises(self) -> Float[Tensor, "*batch 2"]:
        """Standardised errors of the second half of the pairs, relative to those of all, ``(*batch, 2)``.

        Each pair is predicted from those before it, without waves. Over the mean of all squared standardised errors: the
        mean and the largest of those in the second half; 1 where all errors are 0.
        """
        squares = self._given[0].base.residual.squeeze(-1).square()
        late = self._known & (self._known.cumsum(-1) > self._known.sum(-1, keepdim=True) / 2)
        late_squares = torch.where(late, squares, 0.0)
        numbers = torch.stack([late_squares.sum(-1) / late.sum(-1), late_squares.amax(-1)], dim=-1)
        mean = (squares.sum(-1) / self._known.sum(-1)).unsqueeze(-1)
        return ((numbers + TINY) / (mean + TINY)).to(self._dtype)

    def differences(self, members: Bool[Tensor, "*batch R M"]) -> Float[Tensor, "*batch R"]:
        """Expected f of coalitions ``(*batch, R, M)`` minus f of their complements, ``(*batch, R)``."""
        signs = (members & self._players.unsqueeze(-2)).to(self._signs) * 2 - 1
        coefficients = torch.cat([given.coefficients() for given in self._given], dim=-1)
        of_all = self._mixed(coefficients).unsqueeze(-1)
        along = self._at_pairs.mT @ self._mixed(coefficients * coefficients.new_tensor(SHARES)).unsqueeze(-1)
        among = self._kernel.with_pairs(signs) @ of_all + self._size * (self._waves.at(signs) @ along)
        return (signs @ self._prior.unsqueeze(-1) + 2 * among).squeeze(-1).to(self._dtype)

    def left_out(self) -> Float[Tensor, "*batch P"]:
        """By how much the difference of each pair is not what all others let expect, ``(*batch, P)``; 0 if not measured.

        Rates and the shares' weights are those that have seen it.
        """
        pairs = torch.ones_like(self._known, dtype=self._signs.dtype).diag_embed()
        inverses = {key: factor.whitened(pairs) for key, factor in self._factors.items()}
        missed = [given.left_out(inverses[id(given.base)]) for given in self._given]
        return torch.where(self._known, 2 * self._mixed(torch.stack(missed, dim=-1)), 0.0)[..., 1:].to(self._dtype)

    @cached_property
    def _factors(self) -> dict[int, Factor]:
        """By their identity: shares may have one factor."""
        return {id(given.base): given.base for given in self._given}

    @cached_property
    def _corrections(self) -> Float[Tensor, "*batch M shares"]:
        return torch.stack([given.correction() for given in self._given], dim=-1)

    def _answer(
        self, prior: Float[Tensor, "*batch M"], corrections: Float[Tensor, "*batch M shares"]
    ) -> Float[Tensor, "*batch M"]:
        return torch.where(self._players, prior + self._mixed(corrections), 0.0).to(self._dtype)

    def _mixed(self, options: Float[Tensor, "*batch A shares"]) -> Float[Tensor, "*batch A"]:
        return (options * self._weights.unsqueeze(-2)).sum(-1)
