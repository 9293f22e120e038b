r"""Interactions of a probability, from a process of its logits beside one of its values.

A class probability is a logistic function of something smoother. Near 0 and 1 it hardly changes, and between them it is
steep; a covariance that is the same everywhere expects neither. So a second Gaussian process
(:mod:`captum_meta.estimators.interaction_process`) is fitted to the logits of what was seen, and the game expected is its
logistic function. Gradients of logits are those of f divided by f (1 - f), so that the directions are the same.

Numbers between 0 and 1 need not be probabilities. So both processes answer, weighed by how likely each makes what
was seen. With :math:`g(f) = \log(f + \epsilon) - \log(1 - f + \epsilon)` the density of f is

.. math:: p(f_1, \dots, f_n) = p(g(f_1), \dots, g(f_n)) \prod_k g'(f_k),
    \quad g'(f) = \frac 1{f + \epsilon} + \frac 1{1 - f + \epsilon}.

Functions of Gaussian processes, and their likelihoods: Snelson, Rasmussen and Ghahramani, *Warped Gaussian Processes*,
NeurIPS 2003.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.estimators.interaction_process import InteractionProcess

_EPSILON = 1e-6
"""epsilon of the formula: f of 0 and 1 have a logit."""
_ROUNDING = 1e-6
_LEAST_RANGE = 1e-4
"""Where all that was seen is closer together, the logit is a straight line, or rounding."""
_TEMPER = 0.5
"""Power of the likelihood, below 1 because the covariances are guesses of which none is true."""


def may_be_probabilities(values: Float[Tensor, "R P"], known: Bool[Tensor, "R P"]) -> Bool[Tensor, " R"]:
    """Rows of which all that is known lies between 0 and 1, and is not all the same.

    >>> seen = torch.tensor([[0.1, 0.9], [0.1, 1.1], [0.3, 0.3]])
    >>> may_be_probabilities(seen, torch.ones(3, 2, dtype=torch.bool)).tolist()
    [True, False, False]
    """
    least = torch.where(known, values, torch.inf).amin(1)
    most = torch.where(known, values, -torch.inf).amax(1)
    return (least >= -_ROUNDING) & (most <= 1 + _ROUNDING) & (most - least > _LEAST_RANGE)


class ProbabilityProcess:
    """A game of values between 0 and 1 as expected from some coalitions, by itself and by its logits.

    Args:
        members, known, acting, directions: as for :class:`~captum_meta.estimators.InteractionProcess`.
        values: ``(R, P)``, f itself.

    Attributes:
        share: ``(R,)``, from 0 to 1, how far the process of the logits is trusted.
    """

    def __init__(
        self,
        members: Bool[Tensor, "R P M"],
        values: Float[Tensor, "R P"],
        known: Bool[Tensor, "R P"],
        acting: Bool[Tensor, "R M"],
        directions: Float[Tensor, "R D M"],
    ) -> None:
        inside = torch.where(known, values, 0.5).double().clamp(0, 1)
        steepness = 1 / (inside + _EPSILON) + 1 / (1 - inside + _EPSILON)
        self._plain = InteractionProcess(members, inside, known, acting, directions)
        self._logits = InteractionProcess(members, _logit(inside), known, acting, directions)
        density = self._logits.log_likelihood + torch.where(known, steepness.log(), 0.0).sum(1)
        self.share = torch.sigmoid(_TEMPER * (density - self._plain.log_likelihood))

    def all_worths(self) -> Float[Tensor, "R S"]:
        """Expected f of all coalitions, ``(R, 2**M)`` float64, ordered as :func:`captum_meta.estimators.all_coalitions`."""
        logistic = (1 + 2 * _EPSILON) * torch.sigmoid(self._logits.all_worths()) - _EPSILON
        return self._plain.all_worths().lerp(logistic, self.share.unsqueeze(1))


def _logit(values: Float[Tensor, "R P"]) -> Float[Tensor, "R P"]:
    return (values + _EPSILON).log() - (1 - values + _EPSILON).log()
