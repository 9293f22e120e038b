"""Closed-form correction of what the zero-shot explainer gets wrong on the support rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_meta._numbers import TINY, at_least
from captum_meta.learners._correction import judge, within
from captum_meta.learners.base import MetaLearner
from captum_meta.nn import Explainer, Prior
from captum_meta.nn.encoders import fit_players
from captum_meta.types import Evidence, Explanations, Record

_STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


@dataclass(frozen=True)
class RidgeState(Record):
    """Coefficients of both regressions.

    Attributes:
        shared: ``(*batch, F)``, of the players' features.
        own: ``(*batch, M, C)``, of each player's effects.
        reach: ``(*batch,)``, length of the longest correction of a support row.
    """

    shared: Tensor
    own: Tensor
    reach: Tensor


class Ridge(MetaLearner[RidgeState]):
    r"""Ridge regression of the zero-shot residual, first shared by all players, then for each player alone.

    .. math:: \phi_{ni} = \phi^0_{ni} + x_{ni} \cdot w + z_{ni} \cdot u_i

    with z the player's effects and x the effects beside the network's features, both in units of the output. Each
    regression is solved in closed form for a grid of strengths. The strength, and how much of its correction is applied, are
    judged by rows left out one at a time: nothing is, unless these rows clearly miss less with it. No row is corrected by
    more than the support row that was corrected most: effects that explode on a saturated row would carry x w anywhere.

    Args:
        explainer: the meta-trained explainer.
        confidence: standard errors that are subtracted from the gain of a correction on left-out rows.
    """

    def __init__(self, explainer: Explainer, confidence: float = 1.5) -> None:
        super().__init__(explainer)
        self.confidence = at_least("confidence", confidence, 0.0)

    def arguments(self) -> dict[str, object]:
        return {"confidence": self.confidence}

    def adapt(self, support: Explanations) -> RidgeState:
        self.require_rows(support)
        evidence = support.evidence.without_coalitions()
        prior = self.explainer.trained_prior(evidence)
        start = self.explainer.complete(prior, evidence).attributions
        residual = torch.where(evidence.players, support.attributions - start, 0.0).double()
        trust = _trust(residual, support.variance)
        spread = prior.spread.double()
        shared = _shared_regression(_shared_features(prior, evidence).double(), residual, trust)
        weights, left_out = _choose(shared, residual, spread, self.confidence)
        own = _own_regression(_effects(evidence).double(), left_out, trust)
        coefficients, _ = _choose(own, left_out, spread, self.confidence)
        weights, coefficients = weights.to(start.dtype), coefficients.to(start.dtype)
        return RidgeState(weights, coefficients, _added(weights, coefficients, prior, evidence).norm(dim=-1).amax(-1))

    def corrected(self, prior: Prior, state: RidgeState, evidence: Evidence) -> Prior:
        correction = _added(state.shared, state.own, prior, evidence)
        return replace(prior, attributions=prior.attributions + within(correction, state.reach))


def _added(shared: Tensor, own: Tensor, prior: Prior, evidence: Evidence) -> Tensor:
    """What both regressions add, ``(*batch, N, M)``."""
    own = fit_players(own, evidence.players.shape[-1], dim=-2).unsqueeze(-3)
    shared = (_shared_features(prior, evidence) * shared[..., None, None, :]).sum(-1)
    return torch.where(evidence.players, shared + (_effects(evidence) * own).sum(-1), 0.0)


def _effects(evidence: Evidence) -> Tensor:
    measured = evidence.measured & evidence.players.unsqueeze(-1)
    return torch.where(measured, evidence.effects, 0.0)


def _shared_features(prior: Prior, evidence: Evidence) -> Tensor:
    return torch.cat([_effects(evidence), prior.features], dim=-1)


def _trust(residual: Tensor, variance: Tensor | None) -> Tensor:
    """Weight of each label, 1 where it is exact: the share of the residual that is not its noise."""
    if variance is None:
        return torch.ones_like(residual)
    typical = residual.square().mean((-2, -1), keepdim=True)
    return typical / (typical + variance).clamp(min=torch.finfo(typical.dtype).tiny)


_Regression = Callable[[float], tuple[Tensor, Tensor]]
"""From a strength to the coefficients, and to each row's correction fitted without that row ``(*batch, K, M)``."""


@dataclass(frozen=True)
class _Normal:
    """Normal equations of each row, so that leaving a row out is a subtraction.

    Attributes:
        gram: ``(*batch, K, [M,] F, F)``.
        moment: ``(*batch, K, [M,] F)``.
        row_dim: the dimension of the rows in ``moment``.
        size: typical diagonal of the summed Gram matrices, in which the strength is measured.
    """

    gram: Tensor
    moment: Tensor
    row_dim: int
    size: Tensor

    def solve(self, strength: float) -> tuple[Tensor, Tensor]:
        """Coefficients of all rows, and of all but one row at a time."""
        gram = self.gram.sum(self.row_dim - 1, keepdim=True)
        moment = self.moment.sum(self.row_dim, keepdim=True)
        ridge = strength * self.size.clamp(min=TINY).unsqueeze(-1) * torch.eye(gram.shape[-1]).to(gram)
        everything = torch.linalg.solve(gram + ridge, moment.unsqueeze(-1)).squeeze(-1)
        without = torch.linalg.solve(gram - self.gram + ridge, (moment - self.moment).unsqueeze(-1)).squeeze(-1)
        return everything.squeeze(self.row_dim), without


def _shared_regression(features: Tensor, target: Tensor, trust: Tensor) -> _Regression:
    weighted = (features * trust.unsqueeze(-1)).mT
    gram = weighted @ features
    size = gram.sum(-3, keepdim=True).diagonal(dim1=-2, dim2=-1).mean(-1, keepdim=True)
    normal = _Normal(gram, (weighted @ target.unsqueeze(-1)).squeeze(-1), -2, size)

    def regress(strength: float) -> tuple[Tensor, Tensor]:
        weights, without = normal.solve(strength)
        return weights, (features * without.unsqueeze(-2)).sum(-1)

    return regress


def _own_regression(features: Tensor, target: Tensor, trust: Tensor) -> _Regression:
    weighted = features * trust.unsqueeze(-1)
    gram = weighted.unsqueeze(-1) * features.unsqueeze(-2)
    size = gram.sum(-4, keepdim=True).diagonal(dim1=-2, dim2=-1).mean((-2, -1), keepdim=True)
    normal = _Normal(gram, weighted * target.unsqueeze(-1), -3, size)

    def regress(strength: float) -> tuple[Tensor, Tensor]:
        weights, without = normal.solve(strength)
        return weights, (features * without).sum(-1)

    return regress


def _choose(regression: _Regression, residual: Tensor, spread: Tensor, confidence: float) -> tuple[Tensor, Tensor]:
    """The coefficients of the best strength, shrunk by the lower confidence bound, and the left-out rows' residuals."""
    fits = [regression(strength) for strength in _STRENGTHS]
    coefficients = torch.stack([weights for weights, _ in fits])
    trust, applied = judge(torch.stack([correction for _, correction in fits]), residual, confidence, spread)
    return trust.of(coefficients), residual - applied
