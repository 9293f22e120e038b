r"""How much each player interacts, as the row's own coalitions tell: the covariance of greatest likelihood.

A network guesses the trust in the prior, :math:`\tau`, and the diffusion rates, :math:`\rho`, of the hypercube posterior
before any coalition is known. The worths then say how good the guess was: of all covariances the one is taken under which
they are most likely, at its best amplitude, given that logarithms of tau and logits of rho are normal around the network's
(type-II maximum likelihood: Rasmussen and Williams 2006, section 5.4). With K the covariance of P pairs whose residuals are
r, and a = K^-1 r, what is made small is

.. math:: \tfrac P2 \log r^T K^{-1} r + \tfrac12 \log|K| + \sum_i \tfrac1{2 \sigma^2} (\Delta_i^2 + \Delta_i'^2)

by a few steps of Adam; its slope along K is :math:`\tfrac12 (K^{-1} - P a a^T / r^T a)`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta.estimators.multi_index import MultiIndexWaves

_STEPS, _STEP = 5, 0.55
_PRECISION = 2.0
"""Of changes: a larger one harms fewer rows, a smaller one helps more."""
_MOST_PAIRS = 80
"""So many pairs tell rates well enough; the cost is cubic in them."""
_LARGEST_CHANGE = 5.0
_SHARE = 1.0
_MOST = 0.98
_SMALL = 0.02
"""Slopes well below count for little: without it, steps would be signs of slopes, and rounding would decide about some."""
_JITTER, _FLOOR, _TINY = 2e-6, 1e-14, 1e-30


def likely_rates(
    members: Tensor,
    differences: Tensor,
    measured: Tensor,
    players: Tensor,
    total: Tensor,
    prior: Tensor,
    additive: Tensor,
    rates: Tensor,
    directions: Tensor,
) -> tuple[Tensor, Tensor]:
    """Tau and rho of greatest likelihood, both ``(*batch, M)`` float64.

    Arguments are those of :class:`~captum_meta.estimators.HypercubePosterior`, to which the answers are to be given in place
    of ``additive`` and ``rates``; they are differentiable in these two, the changes taken as given. What is 0 remains 0.

    >>> pairs = torch.eye(3, dtype=torch.bool)
    >>> worths, whole, ones = torch.tensor([0.9, 1.0, 1.1]), torch.tensor(3.0), torch.ones(3)
    >>> known = (pairs, worths, pairs.any(0), pairs.any(0), whole, ones, 0.3 * ones, 0.3 * ones, 0 * ones.unsqueeze(0))
    >>> [part.shape for part in likely_rates(*known)]
    [torch.Size([3]), torch.Size([3])]
    """
    additive, rates = (torch.where(players, part.double(), 0.0) for part in (additive, rates))
    with torch.no_grad():
        pairs = _Pairs.read(members, differences, measured, players, total, prior, directions)
        changes = _changes(pairs, additive.detach(), rates.detach())
    return _changed(additive, rates, changes)


@dataclass(frozen=True)
class _Pairs:
    """The first pairs of a row, that of everyone and no one before them, in double precision: steps amplify rounding."""

    signs: Tensor  # (*batch, P, M) of -1 and 1, 0 where not known
    residual: Tensor  # (*batch, P), beyond the prior mean
    known: Tensor  # (*batch, P) bool
    waves: Tensor  # (*batch, P, P), covariance of the few directions, in units of the first pair's variance

    @staticmethod
    def read(
        members: Tensor,
        differences: Tensor,
        measured: Tensor,
        players: Tensor,
        total: Tensor,
        prior: Tensor,
        directions: Tensor,
    ) -> _Pairs:
        members, differences, measured = (part[..., : _MOST_PAIRS - 1] for part in (members.mT, differences, measured))
        everyone = players.unsqueeze(-2)
        known = torch.cat([torch.ones_like(total, dtype=torch.bool).unsqueeze(-1), measured], dim=-1)
        signs = torch.cat([everyone, members.mT & everyone], dim=-2).double() * 2 - 1
        signs = torch.where(known.unsqueeze(-1), signs, 0.0)
        seen = torch.cat([total.unsqueeze(-1), torch.where(measured, differences, 0.0)], dim=-1).double()
        expected = (signs @ torch.where(players, prior.double(), 0.0).unsqueeze(-1)).squeeze(-1)
        waves = MultiIndexWaves(torch.where(everyone, directions.double(), 0.0)).at(signs)
        return _Pairs(signs, (seen - expected) / 2, known, waves @ waves.mT)


def _changed(additive: Tensor, rates: Tensor, changes: Tensor) -> tuple[Tensor, Tensor]:
    """Of logarithms and of logits, ``changes (2, *batch, M)``."""
    odds = torch.exp(changes[1])
    return additive * torch.exp(changes[0]), (rates * odds / (1 - rates + rates * odds)).clamp(max=_MOST)


def _changes(pairs: _Pairs, additive: Tensor, rates: Tensor) -> Tensor:
    changes = torch.zeros(2, *rates.shape, dtype=rates.dtype, device=rates.device)
    mean, square = torch.zeros_like(changes), torch.zeros_like(changes)
    for step in range(1, _STEPS + 1):
        slope = _slopes(pairs, *_changed(additive, rates, changes)) + _PRECISION * changes
        mean, square = 0.9 * mean + 0.1 * slope, 0.99 * square + 0.01 * slope.square()
        direction = mean / (1 - 0.9**step) / ((square / (1 - 0.99**step)).sqrt() + _SMALL)
        changes = (changes - _STEP * direction).clamp(-_LARGEST_CHANGE, _LARGEST_CHANGE)
    return changes


def _slopes(pairs: _Pairs, additive: Tensor, rates: Tensor) -> Tensor:
    """Of minus the log likelihood, along logarithms of tau and logits of rho, ``(2, *batch, M)``."""
    signs = pairs.signs
    shrink = torch.exp(-rates.log1p().sum(-1, keepdim=True))  # 1 / prod (1 + rho)
    level = (0.5 * torch.log1p(-rates.square()).sum(-1, keepdim=True)).exp().unsqueeze(-1) * shrink.unsqueeze(-1) / 2
    alike = (signs * rates.atanh().unsqueeze(-2)) @ signs.mT
    up, down = torch.exp(alike) * level, torch.exp(-alike) * level
    odd = up - down
    covariance = odd + (signs * (additive - shrink * rates).unsqueeze(-2)) @ signs.mT
    covariance = covariance + _SHARE * covariance[..., :1, :1] * pairs.waves
    slope = _along_covariance(covariance, pairs.residual, pairs.known)
    forms = ((slope @ signs) * signs).sum(-2)
    mixed = (((slope * (up + down)) @ signs) * signs).sum(-2)
    of_odd = (slope * odd).sum((-2, -1)).unsqueeze(-1)
    of_level = -rates / (1 - rates.square()) - 1 / (1 + rates)
    of_linear = shrink * (rates * forms).sum(-1, keepdim=True) / (1 + rates)
    of_rates = mixed / (1 - rates.square()) + of_level * of_odd - shrink * forms + of_linear
    return torch.stack([additive * forms, rates * (1 - rates) * of_rates])


def _along_covariance(covariance: Tensor, residual: Tensor, known: Tensor) -> Tensor:
    """Slope of minus the log likelihood at its best amplitude, ``(*batch, P, P)``; 0 where a pair is not known."""
    diagonal = covariance.diagonal(dim1=-2, dim2=-1)
    ridge = torch.where(known, (_JITTER * diagonal).clamp(min=_FLOOR), 1.0)
    factor, _ = torch.linalg.cholesky_ex(covariance + torch.diag_embed(ridge))
    inverse = torch.cholesky_inverse(factor)
    coefficients = (inverse @ residual.unsqueeze(-1)).squeeze(-1)
    surprise = (residual * coefficients).sum(-1).clamp(min=_TINY)
    count = known.sum(-1)
    outer = coefficients.unsqueeze(-1) * coefficients.unsqueeze(-2) * (count / surprise)[..., None, None]
    slope = (inverse - outer) / 2
    finite = slope.isfinite().all(-1).all(-1)[..., None, None]
    return torch.where(finite & known.unsqueeze(-1) & known.unsqueeze(-2), slope, 0.0)
