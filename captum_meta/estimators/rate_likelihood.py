r"""How much each player interacts, from the row's own coalitions: the covariance of greatest likelihood.

A network guesses the trust in the prior, :math:`\tau`, and the diffusion rates, :math:`\rho`, of the hypercube posterior
before any coalition is known. The worths then correct the guess: of all covariances the one is taken under which
they are most likely, at its best amplitude, given that logarithms of tau and logits of rho are normal around the network's
(type-II maximum likelihood: Rasmussen and Williams 2006, section 5.4). With K the covariance of P pairs whose residuals are
r, and a = K^-1 r, the objective is

.. math:: \tfrac P2 \log r^T K^{-1} r + \tfrac12 \log|K| + \sum_i \tfrac1{2 \sigma^2} (\Delta_i^2 + \Delta_i'^2)

minimised by two steps of bounded length; its gradient by K is :math:`\tfrac12 (K^{-1} - P a a^T / r^T a)`. The waves along
few directions are left out of K: with them, errors are larger.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta._numbers import TINY
from captum_meta._random import row_keys
from captum_meta.estimators.pairs import CoalitionPairs, HypercubePrior

_STEPS, _STEEP = (2.0, 1.5), 1.5
"""Longest steps, and the slope along which a step is half as long."""
_PRECISION = 1.0
"""Inverse variance of the changes: a larger one harms fewer rows, a smaller one helps more."""
_MOST_PAIRS = 80
"""Most pairs that rates are fitted to; the cost is cubic in them."""
_MAX_NUMBERS = 2**16
"""Numbers in the covariances of the rows computed at once, so that they stay in the cache."""
_MOST = 0.98
_JITTER, _FLOOR = 2e-6, 1e-14
_FOUND: ContextVar[dict[int, Tensor] | None] = ContextVar("_FOUND", default=None)


@contextmanager
def remembered_rates() -> Iterator[None]:
    """Within this context, :func:`likely_rates` caches the rates of rows, by all that it reads."""
    token = _FOUND.set({})
    try:
        yield
    finally:
        _FOUND.reset(token)


def likely_rates(pairs: CoalitionPairs, prior: HypercubePrior) -> HypercubePrior:
    """The prior with tau and rho of greatest likelihood, both float64.

    They are differentiable in those of ``prior``, the changes taken as given. What is 0 remains 0.

    >>> everyone, ones = torch.ones(3, dtype=torch.bool), torch.ones(3)
    >>> pairs = CoalitionPairs(torch.eye(3).bool(), torch.tensor([0.9, 1.0, 1.1]), everyone, everyone, torch.tensor(3.0))
    >>> likely_rates(pairs, HypercubePrior(ones, 0.3 * ones, 0.3 * ones, torch.zeros(1, 3))).rates.shape
    torch.Size([3])
    """
    double = prior.to(dtype=torch.float64).among(pairs.players)
    n_batch = double.rates.dim() - 1
    some, before = pairs.shortened(P=_MOST_PAIRS - 1).flattened(n_batch), double.detach().flattened(n_batch)
    with torch.no_grad():
        changes = _remembered_changes(some, before).reshape(2, *double.rates.shape)
    additive, rates = _changed(double.additive, double.rates, changes)
    return replace(prior, additive=additive, rates=rates)


def _remembered_changes(pairs: CoalitionPairs, prior: HypercubePrior) -> Float[Tensor, "2 N M"]:
    """Those of rows that are not remembered are computed."""
    found = _FOUND.get()
    if found is None:
        return _changes_of_rows(pairs, prior)
    seen = (pairs.members, pairs.differences, pairs.measured, pairs.players, pairs.total)
    keys = row_keys((*seen, prior.mean, prior.additive, prior.rates)).tolist()
    new = [row for row, key in enumerate(keys) if key not in found]
    if new:
        rows = torch.tensor(new, device=prior.rates.device)
        changes = _changes_of_rows(pairs[rows], prior[rows])
        found.update(zip([keys[row] for row in new], changes.unbind(1), strict=True))
    return torch.stack([found[key] for key in keys], dim=1)


def _changes_of_rows(pairs: CoalitionPairs, prior: HypercubePrior) -> Float[Tensor, "2 N M"]:
    """Of rows ``(N, M)``, some after others."""
    step = max(1, _MAX_NUMBERS // (pairs.members.shape[-2] + 1) ** 2)
    starts = range(0, max(1, len(prior.rates)), step)
    return torch.cat([_changes_of(pairs[k : k + step], prior[k : k + step]) for k in starts], dim=1)


def _changes_of(pairs: CoalitionPairs, prior: HypercubePrior) -> Float[Tensor, "2 *batch M"]:
    return _changes(_Seen.read(pairs, prior), prior.additive, prior.rates)


@dataclass(frozen=True)
class _Seen:
    """The pairs of a row, that of everyone and no one before them, in double precision: steps amplify rounding."""

    signs: Float[Tensor, "*batch P M"]  # (*batch, P, M) of -1 and 1, 0 where not known
    residual: Float[Tensor, "*batch P"]  # (*batch, P), beyond the prior mean
    known: Bool[Tensor, "*batch P"]  # (*batch, P) bool

    @staticmethod
    def read(pairs: CoalitionPairs, prior: HypercubePrior) -> _Seen:
        pairs = pairs.to(dtype=torch.float64).with_everyone()
        signs = pairs.signs()
        return _Seen(signs, pairs.residual(signs, prior.mean), pairs.measured)


def _changed(
    additive: Float[Tensor, "*batch M"], rates: Float[Tensor, "*batch M"], changes: Float[Tensor, "2 *batch M"]
) -> tuple[Float[Tensor, "*batch M"], Float[Tensor, "*batch M"]]:
    """Of logarithms and of logits, ``changes (2, *batch, M)``."""
    odds = torch.exp(changes[1])
    return additive * torch.exp(changes[0]), (rates * odds / (1 - rates + rates * odds)).clamp(max=_MOST)


def _changes(
    seen: _Seen, additive: Float[Tensor, "*batch M"], rates: Float[Tensor, "*batch M"]
) -> Float[Tensor, "2 *batch M"]:
    changes = torch.zeros(2, *rates.shape, dtype=rates.dtype, device=rates.device)
    for longest in _STEPS:
        slope = _slopes(seen, *_changed(additive, rates, changes)) + _PRECISION * changes
        changes = changes - longest * slope / (_STEEP + slope.abs())
    return changes


def _slopes(
    seen: _Seen, additive: Float[Tensor, "*batch M"], rates: Float[Tensor, "*batch M"]
) -> Float[Tensor, "2 *batch M"]:
    """Of minus the log likelihood, along logarithms of tau and logits of rho, ``(2, *batch, M)``."""
    signs = seen.signs
    shrink = torch.exp(-rates.log1p().sum(-1, keepdim=True))  # 1 / prod (1 + rho)
    level = 0.5 * torch.log1p(-rates.square()).sum(-1, keepdim=True).unsqueeze(-1) + (shrink / 2).log().unsqueeze(-1)
    up = ((signs * rates.atanh().unsqueeze(-2)) @ signs.mT).add_(level).exp_()
    down = torch.exp(2 * level) / up
    odd, both = up - down, up.add_(down)
    covariance = ((signs * (additive - shrink * rates).unsqueeze(-2)) @ signs.mT).add_(odd)
    slope = _along_covariance(covariance, seen.residual, seen.known)
    finite = slope.sum((-2, -1)).isfinite().unsqueeze(-1)
    forms = ((signs.mT @ slope) * signs.mT).sum(-1)
    of_odd = torch.linalg.vecdot(slope.flatten(-2), odd.flatten(-2)).unsqueeze(-1)
    mixed = ((signs.mT @ slope.mul_(both)) * signs.mT).sum(-1)
    of_level = -rates / (1 - rates.square()) - 1 / (1 + rates)
    of_linear = shrink * (rates * forms).sum(-1, keepdim=True) / (1 + rates)
    of_rates = mixed / (1 - rates.square()) + of_level * of_odd - shrink * forms + of_linear
    return torch.where(finite, torch.stack([additive * forms, rates * (1 - rates) * of_rates]), 0.0)


def _along_covariance(
    covariance: Float[Tensor, "*batch P P"], residual: Float[Tensor, "*batch P"], known: Bool[Tensor, "*batch P"]
) -> Float[Tensor, "*batch P P"]:
    """Slope of minus the log likelihood at its best amplitude, ``(*batch, P, P)``; a ridge is added in place.

    Pairs that are not known stand for themselves: their signs are 0, so that nothing reads their slopes.
    """
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    diagonal.add_(torch.where(known, (_JITTER * diagonal).clamp(min=_FLOOR), 1.0))
    inverse = torch.cholesky_inverse(torch.linalg.cholesky_ex(covariance)[0])
    coefficients = inverse @ residual.unsqueeze(-1)
    surprise = (residual.unsqueeze(-2) @ coefficients).clamp(min=TINY)
    weighted = coefficients.mT * (-known.sum(-1)[..., None, None] / surprise)
    return inverse.baddbmm_(coefficients, weighted).mul_(0.5)
