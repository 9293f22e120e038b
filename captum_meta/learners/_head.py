"""A closed-form head: Bayesian regression of what the explainer gets wrong, in learned features."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captum_meta.learners._coordinates import SupportCoordinates
from captum_meta.learners._correction import Trust, judge
from captum_meta.learners._multitask import solve
from captum_meta.nn import Prior
from captum_meta.nn.blocks import draw_normal
from captum_meta.nn.encoders import EvidenceEncoder, Statistics, effect_sizes, fit_players
from captum_meta.types import Evidence, Explanations, Record

_NOISE = (0.1, 1.0, 10.0)


@dataclass(frozen=True)
class HeadState(Record):
    """Coefficients ``shared (*batch, D)`` and ``own (*batch, M, d)``, and how far what they add is to be trusted."""

    shared: Tensor
    own: Tensor
    trust: Trust


class ClosedFormHead(nn.Module):
    r"""The residual of player i in row n as a learned linear map, in part shared by all players, in part the player's own.

    .. math:: r_{ni} = \psi_{ni} \cdot w + \chi_{ni} \cdot u_i + \epsilon_{ni}, \qquad
        w, u_i \sim N(0, I), \quad \epsilon_{ni} \sim N(0, \tau \sigma_{ni}^2)

    An encoder gives the features psi and chi and the noise sigma, all in units of the player's effects; training fits them
    so that the posterior mean of w and u, in closed form, explains other rows of the same model. It is computed for a few
    noise levels tau, and these, and no correction at all, are averaged with weights that fall with the errors on support
    rows left out one at a time. How much of the average is applied is
    the share that lowers the errors of these rows, by a lower confidence bound. The cost is linear in the players.

    Closed-form heads in meta-learning: Bertinetto et al. 2019; learned priors for Bayesian regression: Harrison et al. 2018.

    Args:
        encoder: gives the features.
        shared: dimensions of psi.
        own: dimensions of chi.
        confidence: standard errors that are subtracted from the gain of the averaged correction on left-out rows.
    """

    def __init__(self, encoder: EvidenceEncoder, shared: int = 48, own: int = 16, confidence: float = 1.0) -> None:
        super().__init__()
        self.encoder, self.shared, self.own, self.confidence = encoder, shared, own, confidence
        width = encoder.width
        self.shared_features, self.own_features = nn.Linear(width, shared, bias=False), nn.Linear(width, own)
        self.log_noise = nn.Linear(width, 1)
        self.floor = nn.Parameter(torch.tensor(-5.0))
        self.sharpness, self.reluctance = nn.Parameter(torch.tensor(0.0)), nn.Parameter(torch.tensor(0.5))
        for features in (self.shared_features, self.own_features):
            draw_normal(features.weight, 0.3 / width**0.5)
        nn.init.zeros_(self.log_noise.weight)
        nn.init.constant_(self.log_noise.bias, -2.0)

    @classmethod
    def of(cls, given: ClosedFormHead | Mapping[str, Any] | str | None, features: int) -> ClosedFormHead:
        """The head itself, one from its arguments, or by default a fresh one over the explainer's ``features``."""
        if isinstance(given, Mapping):
            arguments = dict(given)
            return cls(EvidenceEncoder(**arguments.pop("encoder")), **arguments)
        return given if isinstance(given, ClosedFormHead) else cls(EvidenceEncoder(features))

    def arguments(self) -> dict[str, object]:
        """Constructor arguments, as JSON can hold them."""
        return {
            "encoder": dict(self.encoder.arguments()),
            "shared": self.shared,
            "own": self.own,
            "confidence": self.confidence,
        }

    def fit(
        self,
        support: Explanations,
        prior: Prior,
        residual: Float[Tensor, "*batch K M"],
        statistics: Statistics,
        coordinates: SupportCoordinates,
    ) -> tuple[HeadState, HeadState, Float[Tensor, "*batch K M"]]:
        """Coefficients, each row's part in them, and the residuals of rows left out one at a time, ``(*batch, K, M)``.

        Args:
            support: the explained rows.
            prior: the explainer's answer for them.
            residual: attributions minus the explainer's, 0 for padding.
            statistics: of these rows.
            coordinates: of their players.
        """
        rows, weights, applied, trust = self._posterior(support, prior, residual, statistics, coordinates)
        shared, own = rows.mixed(weights)
        found = HeadState(shared.sum(-2), own.sum(-3), trust), HeadState(shared, own, trust)
        coefficients, parts = (state.to(dtype=residual.dtype) for state in found)
        return coefficients, parts, (residual - applied).to(residual.dtype)

    def correct(
        self, state: HeadState, prior: Prior, evidence: Evidence, statistics: Statistics
    ) -> Float[Tensor, "*batch N M"]:
        """Corrections of the explainer's attributions, ``(*batch, N, M)``."""
        shared, own, _ = self._features(prior, evidence, statistics)
        correction = (shared * state.shared[..., None, None, :]).sum(-1)
        correction = correction + (own * fit_players(state.own, own.shape[-2], dim=-2).unsqueeze(-3)).sum(-1)
        return correction * statistics.unit[..., None, None]

    def _features(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> tuple[Tensor, Tensor, Tensor]:
        hidden = self.encoder(prior, evidence, statistics)
        size = (effect_sizes(evidence) * evidence.players / statistics.unit[..., None, None]).unsqueeze(-1)
        noise = (self.log_noise(hidden).exp() * size).squeeze(-1)
        return self.shared_features(hidden) * size, self.own_features(hidden) * size, noise

    def _posterior(
        self,
        support: Explanations,
        prior: Prior,
        residual: Tensor,
        statistics: Statistics,
        coordinates: SupportCoordinates,
    ) -> tuple[_Rows, Tensor, Tensor, Trust]:
        """Rows, the weights of their noise levels, the applied corrections of left-out rows, and how much is applied."""
        unit = statistics.unit[..., None, None].double()
        shared, own, noise = (part.double() for part in self._features(prior, support.evidence, statistics))
        target = residual.double() / unit
        label_noise = torch.zeros_like(target) if support.variance is None else support.variance.double() / unit.square()
        signal = shared.square().sum(-1) + own.square().sum(-1)
        variance = noise.square() + 1e-4 * signal + self.floor.double().exp().square()
        fits = [solve(shared, own, target, tau * variance + label_noise, support.evidence.players) for tau in _NOISE]
        duals = torch.stack([fit[0] for fit in fits] + [torch.zeros_like(target)])
        corrections = torch.stack([target - fit[1] for fit in fits] + [torch.zeros_like(target)])
        corrections = corrections - prior.spread.double() * corrections.sum(-1, keepdim=True)
        remains = target - corrections
        errors = remains.square().sum((-2, -1)) - label_noise.sum((-2, -1))
        errors = torch.log(errors.clamp(min=0) + 1e-3 * target.square().sum((-2, -1)) + 1e-12)
        count = float(len(support))
        logits = -self.sharpness.double().exp() * count * errors
        nothing = torch.zeros_like(logits).index_fill(0, torch.tensor(len(_NOISE), device=logits.device), count**0.5)
        weights = (logits + self.reluctance.double() * nothing).softmax(0)
        averaged = (weights[..., None, None] * corrections).sum(0, keepdim=True)
        trust, applied = judge(averaged, target, self.confidence, support=coordinates)
        trust = replace(trust, reach=trust.reach * statistics.unit.double())
        return _Rows(shared, own, duals), trust.strength * weights, applied * unit, trust


@dataclass(frozen=True)
class _Rows:
    """Features of the support rows, and the dual coefficients ``(levels, *batch, K, M)`` of their residuals."""

    shared: Tensor
    own: Tensor
    duals: Tensor

    def mixed(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """Each row's part in the coefficients, averaged over the levels: ``(*batch, K, D)`` and ``(*batch, K, M, d)``."""
        dual = (weights[..., None, None] * self.duals).sum(0).unsqueeze(-1)
        return (self.shared * dual).sum(-2), self.own * dual
