"""Kernel ridge regression of what the zero-shot explainer gets wrong, over all players of the support rows together."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.learners._kernel import LINEAR, SHARED, Features, KernelRegression
from captum_meta.losses import relative_squared_error
from captum_meta.nn import Prior
from captum_meta.nn.encoders import Statistics
from captum_meta.types import Evidence, ExplanationTask


class KernelRidge(KernelRegression):
    r"""Kernel ridge regression of what the zero-shot explanation misses: one function for all players, and one for each.

    .. math:: \phi_{ni} = \phi^0_{ni} + g(z_{ni}) + g_i(z_{ni}), \qquad
        k(z, z') = e^{-|z - z'|^2 / 2 \ell^2} + c\,(1 + z \cdot z')

    z is the player's input's difference from the baseline in units of the support set's deviation, f(x) - f(baseline), the
    zero-shot attribution and the measured effects, these in units of the output. g and all :math:`g_i` have Gaussian
    process priors with covariances :math:`\rho k` and :math:`(1 - \rho) k` (one task per player: Bonilla et al. 2008). The
    exponential is taken in random Fourier features (Rahimi and Recht 2007), whence the cost is linear in players and what is
    learned is one vector of coefficients, and one more for each player.

    The level of the noise, and how much of the correction is applied, are judged by rows left out one at a time, in closed
    form: nothing is, unless these rows clearly miss less with it. No row is corrected by more than the left-out row that was
    corrected most, and corrections fade, by :math:`e^{-\lambda (d / d_0 - 1)}`, where a row's distance d from its nearest
    support row, mean square in z over players, exceeds :math:`d_0`, that of the support rows among themselves. A player
    without any effect keeps its zero. Among very many players, those that the explainer missed most are learned from.

    Args:
        explainer: the meta-trained explainer.
        confidence: standard errors that are subtracted from the gain of a correction on left-out rows.
        features: how many random features stand for the exponential.
    """

    def kernel(self, z: Float[Tensor, "*batch M A"], prior: Prior, evidence: Evidence, statistics: Statistics) -> Features:
        waves = self.waves(z @ self.frequencies.to(z))
        features = torch.cat([waves, LINEAR**0.5 * z, torch.full_like(z[..., :1], LINEAR**0.5)], dim=-1)
        return Features(SHARED**0.5 * features, (1 - SHARED) ** 0.5 * features, torch.ones_like(z[..., 0]))

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """That of the explainer, before any correction: this has nothing to learn, and makes a step five times as dear."""
        predicted = self.predict(self.initial_state(), tasks.query.evidence)
        return relative_squared_error(predicted, tasks.query.attributions, tasks.query.variance)
