"""What kernel regressions of the zero-shot residual share: all but the kernel."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta._numbers import at_least
from captum_meta.learners._coordinates import COORDINATES, SupportCoordinates, coordinates
from captum_meta.learners._correction import Trust, judge
from captum_meta.learners._multitask import solve
from captum_meta.learners.base import MetaLearner
from captum_meta.nn import Explainer, Prior
from captum_meta.nn.encoders import Statistics, effect_sizes, fit_players
from captum_meta.types import Evidence, Explanations, Record

NOISES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
LENGTH, LINEAR, SHARED = 2.0, 0.3, 0.9
_MAX_PAIRS = 2**16
_WORTHLESS = 1e4
"""Noise variance, in units of the residual's mean square, from which a label has no weight."""


@dataclass(frozen=True)
class Features:
    """A kernel's features of the players of some rows.

    Attributes:
        shared: ``(*batch, N, M, D)``, whose inner products are the covariance of what is alike for all players.
        own: ``(*batch, N, M, d)``, whose inner products are that of each player's own part.
        noise: ``(*batch, N, M)``, variance of a residual that neither explains, before the level is chosen.
    """

    shared: Float[Tensor, "*batch M D"]
    own: Float[Tensor, "*batch M d"]
    noise: Float[Tensor, "*batch M"]


@dataclass(frozen=True)
class KernelState(Record):
    """A regression of the zero-shot residual, and what is known of the rows that it was fitted to.

    Attributes:
        statistics: in which units rows are read.
        support: where the support rows stand.
        trust: how far corrections are applied; ``shared`` and ``own`` are of the option and the strength that it names.
        shared: ``(*batch, D)``, coefficients of what is alike for all players.
        own: ``(*batch, M, d)``, of each player's own part.
    """

    statistics: Statistics
    support: SupportCoordinates
    trust: Trust
    shared: Tensor
    own: Tensor

    def nearness(self, z: Float[Tensor, "*batch N M A"], players: Bool[Tensor, "*batch N M"]) -> Float[Tensor, "*batch N 1"]:
        """Factor by which the correction of a row with coordinates z fades, ``(*batch, N, 1)``."""
        assert self.trust.decay is not None
        return self.support.nearness(z, players, self.trust.decay)


Fit = tuple[Tensor, Tensor, Tensor]
"""Shared coefficients ``(*batch, D)``, players' own ``(*batch, M, d)``, and corrections ``(*batch, K, M)`` of the support
rows, each fitted without its row."""


class KernelRegression(MetaLearner[KernelState]):
    """Base of the kernel regressions; a subclass defines the kernel's features.

    Args:
        explainer: the meta-trained explainer.
        confidence: standard errors that are subtracted from the gain of a correction on left-out rows.
        features: how many random features stand for the exponential.
    """

    frequencies: Tensor

    def __init__(self, explainer: Explainer, confidence: float = 1.0, features: int = 64) -> None:
        super().__init__(explainer)
        if features < 2 or features % 2:
            raise ValueError(f"features={features}: pass an even number, as features are pairs of a cosine and a sine.")
        self.confidence, self.features = at_least("confidence", confidence, 0.0), features
        generator = torch.Generator().manual_seed(0)
        frequencies = (
            torch.randn(COORDINATES, features // 2, generator=generator, device="cpu", dtype=torch.float32) / LENGTH
        )
        self.register_buffer("frequencies", frequencies, persistent=False)

    def arguments(self) -> dict[str, object]:
        return {"confidence": self.confidence, "features": self.features}

    @abstractmethod
    def kernel(self, z: Float[Tensor, "*batch M A"], prior: Prior, evidence: Evidence, statistics: Statistics) -> Features:
        """Features of players with coordinates z ``(*batch, N, M, 8)``."""

    def adapt(self, support: Explanations) -> KernelState:
        self.require_rows(support)
        evidence = support.evidence.without_coalitions()
        prior = self.explainer.trained_prior(evidence)
        start = self.explainer.complete(prior, evidence).attributions
        residual = torch.where(evidence.players, support.attributions - start, 0.0)
        statistics = Statistics.of(prior, evidence)
        z = coordinates(prior, evidence, statistics)
        features, rows = self.kernel(z, prior, evidence, statistics), SupportCoordinates.of(z, evidence.players)
        trust, shared, own = self._regress(features, residual, support.variance, prior.spread, alive(evidence), rows)
        return KernelState(statistics, rows, trust, shared, own).to(dtype=start.dtype)

    def _regress(
        self,
        features: Features,
        residual: Tensor,
        variance: Tensor | None,
        spread: Tensor,
        alive: Tensor,
        rows: SupportCoordinates,
    ) -> tuple[Trust, Tensor, Tensor]:
        """How much of the regression is applied, and coefficients ``(*batch, D)`` and ``(*batch, M, d)``."""
        kept, n_players = _most_missed(residual), residual.shape[-1]
        shared = _take(features.shared * alive.unsqueeze(-1), kept).double()
        own = _take(features.own * alive.unsqueeze(-1), kept).double()
        unexplained, spread = _take(features.noise, kept).double(), _take(spread, kept).double()
        residual = _take(residual, kept).double()
        noise = _relative_noise(residual, None if variance is None else _take(variance, kept))
        fits = self.fits(shared, own, residual, unexplained, noise)
        trust, _ = judge(torch.stack([correction for _, _, correction in fits]), residual, self.confidence, spread, rows)
        of_all, of_each = (trust.of(torch.stack([fit[part] for fit in fits])) for part in (0, 1))
        everyone = of_each.new_zeros(*of_each.shape[:-2], n_players, of_each.shape[-1])
        everyone = everyone.scatter(-2, kept.unsqueeze(-1).expand_as(of_each), of_each)
        return trust, of_all, everyone

    def fits(self, shared: Tensor, own: Tensor, residual: Tensor, unexplained: Tensor, noise: Tensor) -> list[Fit]:
        """The candidate corrections: here the posterior mean at each noise level.

        Args:
            shared, own: features of the support rows, as in :class:`Features`.
            residual: what the explainer misses, ``(*batch, K, M)``.
            unexplained: variance of what the features do not explain, before a level is chosen, same shape.
            noise: the labels' own, same shape.
        """
        return [_fit(shared, own, residual, level * unexplained + noise) for level in NOISES]

    def corrected(self, prior: Prior, state: KernelState, evidence: Evidence) -> Prior:
        z = coordinates(prior, evidence, state.statistics)
        features = self.kernel(z, prior, evidence, state.statistics)
        own = fit_players(state.own, z.shape[-2], dim=-2)
        correction = (features.shared * state.shared[..., None, None, :]).sum(-1)
        correction = correction + (features.own * own.unsqueeze(-3)).sum(-1)
        correction = torch.where(alive(evidence), correction, 0.0) * state.nearness(z, evidence.players)
        return replace(prior, attributions=prior.attributions + state.trust.within_reach(correction))

    def waves(self, angles: Tensor) -> Tensor:
        """Features ``(..., F)`` of the exponential, of angles ``(..., F / 2)``."""
        return torch.cat([angles.cos(), angles.sin()], dim=-1) / (self.features / 2) ** 0.5


def alive(evidence: Evidence) -> Bool[Tensor, "*batch M"]:
    """Players ``(*batch, M)`` that may be corrected: not those without any effect, unless no player of the row has one."""
    has_effect = (effect_sizes(evidence) > 0) & evidence.players
    return evidence.players & (has_effect | ~has_effect.any(-1, keepdim=True))


def _most_missed(residual: Tensor) -> Tensor:
    """The players ``(*batch, M')`` used for fitting: all, or of very many those with the largest residuals."""
    n_rows, n_players = residual.shape[-2:]
    count = max(1, _MAX_PAIRS // max(1, n_rows))
    if n_players <= count:
        return torch.arange(n_players, device=residual.device).expand(*residual.shape[:-2], -1)
    return residual.square().sum(-2).topk(count).indices


def _take(values: Tensor, players: Tensor) -> Tensor:
    """Values ``(*batch, K, M, [F])`` of the players ``(*batch, M')``."""
    index = players.unsqueeze(-2)
    dim = -1
    if values.dim() > index.dim():
        dim, index = -2, index.unsqueeze(-1)
    if players.shape[-1] == values.shape[dim]:
        return values
    shape = list(values.shape)
    shape[dim] = players.shape[-1]
    return values.gather(dim, index.expand(shape))


def _relative_noise(residual: Tensor, variance: Tensor | None) -> Tensor:
    """The labels' noise in units of the residual's mean square."""
    if variance is None:
        return torch.zeros_like(residual)
    typical = residual.square().mean((-2, -1), keepdim=True)
    return (variance.double() / typical.clamp(min=torch.finfo(typical.dtype).tiny)).clamp(0, _WORTHLESS)


def _fit(shared: Tensor, own: Tensor, target: Tensor, variance: Tensor) -> Fit:
    dual, left = solve(shared, own, target, variance, torch.ones_like(target, dtype=torch.bool))
    dual = dual.unsqueeze(-1)
    return (shared * dual).sum((-3, -2)), (own * dual).sum(-3), target - left
