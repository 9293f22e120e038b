"""Kernel ridge regression of what the zero-shot explainer gets wrong, over all players of the support rows together."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captum_meta.learners._caution import choose, picked, within
from captum_meta.learners._multitask import fit_coefficients, solve
from captum_meta.learners.base import MetaLearner
from captum_meta.losses import relative_squared_error
from captum_meta.nn import Explainer, Prior
from captum_meta.nn.encoders import effect_sizes, five_effects, input_statistics, standardised
from captum_meta.types import Evidence, Explanations, ExplanationTask, State

_NOISES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)
_SHARED = 0.9
_LENGTH, _LINEAR = 2.0, 0.3
_COORDINATES = 8
_MAX_PAIRS = 2**16
_DEAD = 1e-15
_WORTHLESS = 1e4
"""A label whose noise has so many times the residual's mean square says nothing."""


class KernelRidge(MetaLearner):
    r"""The zero-shot residual as a function of where a player stands, alike for all players but for a part of its own.

    .. math:: \phi_{ni} = \phi^0_{ni} + g(z_{ni}) + g_i(z_{ni}), \qquad
        k(z, z') = e^{-|z - z'|^2 / 2 \ell^2} + c\,(1 + z \cdot z')

    z is the player's input's difference from the baseline in units of the support set's deviation, f(x) - f(baseline), the
    zero-shot attribution and the measured effects, these in units of the output. g and all :math:`g_i` have Gaussian
    process priors with covariances :math:`\rho k` and :math:`(1 - \rho) k` (one task a player: Bonilla et al. 2008). The
    exponential is taken in random Fourier features (Rahimi and Recht 2007), whence the cost is linear in players and what is
    learned is one vector of coefficients, and one more for each player.

    The level of the noise, and how much of the correction is applied, are judged by rows left out one at a time, in closed
    form: nothing is, unless these rows clearly miss less with it. No row is corrected by more than the left-out row that was
    corrected most. A player without any effect keeps its zero. Among very many players, those that the explainer missed most
    are learned from.

    Args:
        explainer: the meta-trained explainer.
        caution: how many standard errors are taken off what the left-out rows say of a correction.
        features: how many random features stand for the exponential.
    """

    frequencies: Tensor

    def __init__(self, explainer: Explainer, caution: float = 1.0, features: int = 64) -> None:
        super().__init__(explainer)
        self.caution, self.features = caution, features
        generator = torch.Generator().manual_seed(0)
        frequencies = torch.randn(_COORDINATES, features // 2, generator=generator) / _LENGTH
        self.register_buffer("frequencies", frequencies, persistent=False)

    def arguments(self) -> dict[str, object]:
        return {"caution": self.caution, "features": self.features}

    def adapt(self, support: Explanations) -> State:
        evidence = replace(support.evidence, coalitions=None)
        prior = self.explainer.prior(evidence)
        start = self.explainer.complete(prior, evidence).attributions
        residual = torch.where(evidence.players, support.attributions - start, 0.0)
        typical = prior.scale.square().mean(-1).sqrt()
        state = {"unit": torch.where(typical > _DEAD, typical, 1.0), **input_statistics(evidence)}
        kept = _most_missed(residual)
        features = self._features(_take(_coordinates(prior, evidence, state), kept)).double()
        features = features * _take(_alive(evidence), kept).unsqueeze(-1)
        residual, variance = _take(residual, kept).double(), support.variance
        noise = _relative_noise(residual, None if variance is None else _take(variance, kept))
        fits = [_fit(features, residual, level + noise) for level in _NOISES]
        corrections = torch.stack([correction for _, _, correction in fits])
        corrections = corrections - _take(prior.spread, kept).double() * corrections.sum(-1, keepdim=True)
        choice = choose(corrections, residual, self.caution)
        shared = picked(torch.stack([fit[0] for fit in fits]), choice)
        own = picked(torch.stack([fit[1] for fit in fits]), choice)
        reach = picked(corrections, choice).norm(dim=-1).amax(-1)
        everyone = own.new_zeros(*own.shape[:-2], start.shape[-1], own.shape[-1])
        learned = {"shared": shared, "own": everyone.scatter(-2, kept.unsqueeze(-1).expand_as(own), own), "reach": reach}
        return {**state, **{name: value.to(start.dtype) for name, value in learned.items()}}

    def prior(self, state: State, evidence: Evidence) -> Prior:
        prior = self.explainer.prior(evidence)
        if not state:
            return prior
        features = self._features(_coordinates(prior, evidence, state))
        own = fit_coefficients(state["own"], features.shape[-2])
        correction = torch.where(_alive(evidence), _correct(features, state["shared"], own), 0.0)
        return replace(prior, attributions=prior.attributions + within(correction, state["reach"]))

    def loss(self, tasks: ExplanationTask) -> Tensor:
        """That of the explainer, before any correction: this has nothing to learn, and makes a step five times as dear."""
        predicted = self.predict(self.initial_state(), tasks.query.evidence)
        return relative_squared_error(predicted, tasks.query.attributions, tasks.query.variance)

    def _features(self, z: Tensor) -> Tensor:
        """``(*batch, N, M, F)`` whose inner products are the kernel."""
        angles = z @ self.frequencies.to(z)
        waves = torch.cat([angles.cos(), angles.sin()], dim=-1) / (self.features / 2) ** 0.5
        return torch.cat([waves, _LINEAR**0.5 * z, torch.full_like(z[..., :1], _LINEAR**0.5)], dim=-1)


def _coordinates(prior: Prior, evidence: Evidence, statistics: State) -> Tensor:
    """Where each player stands, z, ``(*batch, N, M, 8)``, without units; 0 for what is not known."""
    unit = statistics["unit"][..., None, None]
    delta = torch.zeros_like(prior.attributions)
    if evidence.inputs is not None:
        both = standardised(evidence.inputs.to(delta), evidence, statistics).clamp(-5, 5)
        delta = (both[..., 0] - both[..., 1]).clamp(-5, 5)
    total = torch.asinh(evidence.total.unsqueeze(-1) / unit).expand_as(delta)
    effects, _ = five_effects(evidence)
    sizes = torch.asinh(3 * torch.cat([prior.attributions.unsqueeze(-1), effects], dim=-1) / unit.unsqueeze(-1))
    return torch.cat([torch.stack([delta, total], dim=-1), sizes], dim=-1)


def _alive(evidence: Evidence) -> Tensor:
    """Players ``(*batch, M)`` that may be corrected: not those without any effect, unless no player of the row has one."""
    has_effect = (effect_sizes(evidence) > 0) & evidence.players
    return evidence.players & (has_effect | ~has_effect.any(-1, keepdim=True))


def _most_missed(residual: Tensor) -> Tensor:
    """The players ``(*batch, M')`` that are learned from: all, unless there are very many."""
    n_rows, n_players = residual.shape[-2:]
    count = max(1, _MAX_PAIRS // max(1, n_rows))
    if n_players <= count:
        return torch.arange(n_players, device=residual.device).expand(*residual.shape[:-2], -1)
    return residual.square().sum(-2).topk(count).indices


def _take(values: Tensor, players: Tensor) -> Tensor:
    """Those of ``(*batch, K, M, [F])`` that belong to the players ``(*batch, M')``."""
    index = players.unsqueeze(-2)
    dim = -1
    if values.dim() > index.dim():
        dim, index = -2, index.unsqueeze(-1)
    shape = list(values.shape)
    shape[dim] = players.shape[-1]
    return values.gather(dim, index.expand(shape))


def _relative_noise(residual: Tensor, variance: Tensor | None) -> Tensor:
    """The labels' noise in units of the residual's mean square."""
    if variance is None:
        return torch.zeros_like(residual)
    typical = residual.square().mean((-2, -1), keepdim=True)
    return (variance.double() / typical.clamp(min=torch.finfo(typical.dtype).tiny)).clamp(0, _WORTHLESS)


def _fit(features: Tensor, target: Tensor, variance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Shared coefficients ``(*batch, F)``, players' own ``(*batch, M, F)``, and corrections fitted without their row."""
    everyone = torch.ones_like(target, dtype=torch.bool)
    dual, left = solve(_SHARED**0.5 * features, (1 - _SHARED) ** 0.5 * features, target, variance, everyone)
    parts = features * dual.unsqueeze(-1)
    return _SHARED * parts.sum((-3, -2)), (1 - _SHARED) * parts.sum(-3), target - left


def _correct(features: Tensor, shared: Tensor, own: Tensor) -> Tensor:
    return (features * (shared[..., None, None, :] + own.unsqueeze(-3))).sum(-1)
