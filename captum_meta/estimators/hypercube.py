"""Shapley values of the game expected from the coalitions seen: Gaussian-process regression on the hypercube.

KernelSHAP treats whatever is not additive as noise. But the worths of a deterministic game carry no noise: what is not
additive is interaction, and coalitions that differ in few players interact alike. A Gaussian process over coalitions with
the diffusion kernel (Kondor and Lafferty 2002), one diffusion rate a player, says just that; it passes through every worth
seen, so it is exact when all are, and the Shapley values of its mean are linear in the worths and closed-form.

Shapley values depend on a game's odd part alone, f(S) minus f of the complement of S, and under this kernel the odd part is
independent of the even one. So coalitions come in pairs with their complements, and a pair is one observation of the odd
part. With s, t in {-1, 1}^M for "in" and "out", its prior covariance is

    k(s, t) = sum_i tau_i s_i t_i + [odd part of prod_i (1 + rho_i s_i t_i) - sum_i rho_i s_i t_i] / prod_i (1 + rho_i):

``tau`` is how little the additive prior is trusted, and ``rho`` in [0, 1) how much a player interacts (0: a player with no
interactions). Both come from the explainer; only their ratios matter.

How much of the game depends on few directions (:mod:`captum_meta.estimators.multi_index`) differs from row to row: none,
or 2 or 50 times as much as on the rest. The answers of all three are averaged by how well each expects what was seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from math import ceil, log

import torch
from torch import Tensor

from captum_meta.estimators.multi_index import MultiIndexWaves
from captum_meta.estimators.quadrature import gauss_legendre

_JITTER = 1e-10
_FLOOR = 1e-14
"""Where no player is expected to have any effect."""
_MAX_NODES = 12
_TINY = 1e-30
_SHARES, _LOG_PRIOR = (0.0, 2.0, 50.0), (0.0, 0.0, -1.5)
_TEMPER = 0.5
"""Power of the evidence: the covariances are guesses, so what is seen tells less of them than if one were true."""


@dataclass(frozen=True)
class HypercubeKernel:
    """The module's covariance without the few directions, of pairs with each other and with Shapley values; all float64."""

    signs: Tensor  # (*batch, P, M)
    additive: Tensor  # (*batch, M), tau
    rates: Tensor  # (*batch, M), rho

    @cached_property
    def _log_norm(self) -> Tensor:
        return self.rates.log1p().sum(-1)

    @cached_property
    def _linear(self) -> Tensor:
        """tau less the additive part of the product."""
        return self.additive - torch.exp(-self._log_norm).unsqueeze(-1) * self.rates

    @cached_property
    def _nodes(self) -> tuple[Tensor, Tensor]:
        nodes, weights = gauss_legendre(min(_MAX_NODES, ceil(self.signs.shape[-1] / 2)))
        return nodes.to(self.signs), weights.to(self.signs)

    def with_pairs(self, others: Tensor) -> Tensor:
        """``(*batch, R, P)``, of the pairs ``(*batch, R, M)`` with these."""
        alike = (others * self.rates.atanh().unsqueeze(-2)) @ self.signs.mT
        level = (0.5 * torch.log1p(-self.rates.square()).sum(-1) - self._log_norm - log(2))[..., None, None]
        odd = torch.exp(level + alike) - torch.exp(level - alike)
        return odd + (others * self._linear.unsqueeze(-2)) @ self.signs.mT

    def with_shapley_values(self) -> Tensor:
        """``(*batch, P, M)``: the Shapley value of player i in the game t -> k(s, t), by its multilinear extension."""
        nodes, weights = self._nodes
        scaled = self.rates.unsqueeze(-2) * (2 * nodes - 1).unsqueeze(-1)
        logs = self.signs @ scaled.atanh().mT + 0.5 * torch.log1p(-scaled.square()).sum(-1).unsqueeze(-2)
        products = torch.exp(logs - self._log_norm[..., None, None])
        leave_out = 2 * self.rates.unsqueeze(-2) / (1 - scaled.square()) * weights.unsqueeze(-1)
        joint = self.signs * (products @ leave_out) - products @ (leave_out * scaled)
        return joint + 2 * self.signs * self._linear.unsqueeze(-2)

    def of_shapley_values(self) -> Tensor:
        """``(*batch, M)``: variance of each Shapley value before anything was seen."""
        nodes, weights = self._nodes
        means = 2 * nodes - 1
        factors = 1 + self.rates[..., None, None, :] * (means.unsqueeze(-1) * means).unsqueeze(-1)
        others = (factors.log().sum(-1, keepdim=True) - factors.log() - self._log_norm[..., None, None, None]).exp()
        integral = torch.einsum("p,q,...pqm->...m", weights, weights, others)
        return 4 * (self.rates * integral + self._linear)


def _factor(covariance: Tensor) -> Tensor:
    """Cholesky factors; with a larger ridge where rounding has spoilt one. A row of NaN spoils only itself.

    The ridge is added to ``covariance`` in place.
    """
    ridge = (_JITTER * covariance.diagonal(dim1=-2, dim2=-1)).clamp(min=_FLOOR)
    covariance.diagonal(dim1=-2, dim2=-1).add_(ridge)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if bool(failed.any()):
        larger, _ = torch.linalg.cholesky_ex(covariance + torch.diag_embed(1e4 * ridge))
        factor = torch.where((failed > 0)[..., None, None], larger, factor)
    return factor


@dataclass(frozen=True)
class _Conditioned:
    """The Gaussian process of one covariance, given the pairs seen; all float64."""

    known: Tensor  # (*batch, P) bool
    residual: Tensor  # (*batch, P)
    with_values: Tensor  # (*batch, P, M), covariance of the pairs with the Shapley values
    factor: Tensor  # (*batch, P, P)

    @cached_property
    def coefficients(self) -> Tensor:
        return torch.cholesky_solve(self.residual.unsqueeze(-1), self.factor).squeeze(-1)

    @cached_property
    def correction(self) -> Tensor:
        """``(*batch, M)``, expected beyond the prior mean."""
        return (self.with_values.mT @ self.coefficients.unsqueeze(-1)).squeeze(-1)

    def log_evidence(self) -> Tensor:
        """Log density ``(*batch,)`` of what was seen, at the amplitude that makes it largest, up to a constant."""
        n_pairs = self.known.sum(-1)
        amplitude = (self.residual * self.coefficients).sum(-1) / n_pairs
        return -0.5 * n_pairs * amplitude.clamp(min=_TINY).log() - self.factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def variance(self, before: Tensor) -> Tensor:
        """Of each Shapley value, ``(*batch, M)``; ``before`` is what it was before anything was seen."""
        cross = torch.where(self.known.unsqueeze(-1), self.with_values, 0.0)
        explained = torch.linalg.solve_triangular(self.factor, cross, upper=False).square().sum(-2)
        precision = torch.cholesky_inverse(self.factor).diagonal(dim1=-2, dim2=-1)
        standardised = torch.where(self.known, self.coefficients.square() / precision, 0.0)
        amplitude = standardised.sum(-1) / self.known.sum(-1)
        return amplitude.unsqueeze(-1) * (before - explained).clamp(min=0)


class HypercubePosterior:
    """The game expected from the worths seen, and how sure that is; differentiable in all but the coalitions.

    Args:
        members: ``(*batch, P, M)`` bool, which players one coalition of each pair has; its complement has the others.
        differences: ``(*batch, P)``, f of this coalition minus f of its complement.
        measured: ``(*batch, P)`` bool, False for padding.
        players: ``(*batch, M)`` bool, False for padding.
        total: ``(*batch,)``, f(input) - f(baseline): the pair of everyone and no one.
        prior: ``(*batch, M)``, Shapley values expected before any worth was seen, in the units of ``differences``.
        additive: ``(*batch, M)``, tau of the module's formula, at least 0.
        rates: ``(*batch, M)``, rho of the module's formula, in [0, 1).
        directions: ``(*batch, D, M)``, along which the worths are expected to change; zeros where nothing is.
    """

    def __init__(
        self,
        members: Tensor,
        differences: Tensor,
        measured: Tensor,
        players: Tensor,
        total: Tensor,
        prior: Tensor,
        additive: Tensor,
        rates: Tensor,
        directions: Tensor,
    ) -> None:
        self._players, self._dtype = players, differences.dtype
        everyone = players.unsqueeze(-2)
        signs = torch.cat([everyone, members & everyone], dim=-2).double() * 2 - 1
        known = torch.cat([torch.ones_like(measured[..., :1]), measured], dim=-1)
        seen = torch.cat([total.unsqueeze(-1), torch.where(measured, differences, 0.0)], dim=-1).double() / 2
        self._prior = torch.where(players, prior.double(), 0.0)
        expected = (signs @ self._prior.unsqueeze(-1)).squeeze(-1) / 2
        residual = torch.where(known, seen - expected, 0.0)
        kernel = HypercubeKernel(
            signs, torch.where(players, additive.double(), 0.0), torch.where(players, rates.double(), 0.0)
        )
        waves = MultiIndexWaves(torch.where(everyone, directions, 0.0))
        among, with_values = kernel.with_pairs(signs), kernel.with_shapley_values()
        level = among[..., :1, :1]
        both = known.unsqueeze(-1) & known.unsqueeze(-2)
        among = torch.where(both, among, torch.eye(known.shape[-1], dtype=among.dtype, device=among.device))
        at_pairs, of_waves = torch.where(known.unsqueeze(-1), waves.at(signs), 0.0), waves.shapley_values()
        self._kernel, self._waves, self._at_pairs, self._of_waves, self._level = kernel, waves, at_pairs, of_waves, level
        scaled = level * at_pairs
        more = scaled @ at_pairs.mT, scaled @ of_waves
        self._games = [
            _Conditioned(
                known,
                residual,
                with_values.add(more[1], alpha=share),
                _factor(among.add(more[0], alpha=share)),
            )
            for share in _SHARES
        ]
        evidence = torch.stack([game.log_evidence() for game in self._games], dim=-1)
        prior = torch.tensor(_LOG_PRIOR, dtype=evidence.dtype, device=evidence.device)
        self._weights = (_TEMPER * evidence + prior).softmax(-1)

    def shapley_values(self) -> Tensor:
        """``(*batch, M)`` in the units and dtype of ``differences``; they sum to ``total`` up to rounding; 0 for padding."""
        return torch.where(self._players, self._prior + self._mixed(self._corrections), 0.0).to(self._dtype)

    def shapley_variance(self) -> Tensor:
        """Variance of each Shapley value given the worths seen, ``(*batch, M)`` in squared units of ``differences``.

        A covariance says it up to an amplitude. This is the mean squared error with which each pair is predicted from all
        the others, over what the covariance expects of it: leave-one-out in closed form (Dubrule 1983).
        """
        before, of_waves = self._kernel.of_shapley_values(), self._level[..., 0] * self._of_waves.square().sum(-2)
        befores = [before.add(of_waves, alpha=share) for share in _SHARES]
        within = [game.variance(one) for game, one in zip(self._games, befores, strict=True)]
        between = self._mixed((self._corrections - self._mixed(self._corrections).unsqueeze(-1)).square())
        return torch.where(self._players, self._mixed(torch.stack(within, dim=-1)) + between, 0.0).to(self._dtype)

    def differences(self, members: Tensor) -> Tensor:
        """Expected f of coalitions ``(*batch, R, M)`` minus f of their complements, ``(*batch, R)`` float64."""
        signs = (members & self._players.unsqueeze(-2)).double() * 2 - 1
        coefficients = [game.coefficients for game in self._games]
        of_all = self._mixed(torch.stack(coefficients, dim=-1)).unsqueeze(-1)
        shared = [share * one for share, one in zip(_SHARES, coefficients, strict=True)]
        along = self._at_pairs.mT @ self._mixed(torch.stack(shared, dim=-1)).unsqueeze(-1)
        additive, among = signs @ self._prior.unsqueeze(-1), self._kernel.with_pairs(signs) @ of_all
        return (additive + 2 * (among + self._level * (self._waves.at(signs) @ along))).squeeze(-1)

    @cached_property
    def _corrections(self) -> Tensor:
        return torch.stack([game.correction for game in self._games], dim=-1)

    def _mixed(self, options: Tensor) -> Tensor:
        return (options * self._weights.unsqueeze(-2)).sum(-1)
