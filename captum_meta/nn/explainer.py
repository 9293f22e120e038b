"""The base of all explainers: a prior from the evidence, completed so that efficiency holds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from captum_meta.nn.blocks import Described
from captum_meta.types import Evidence, Kind, Record, part

_NOTHING = 1e-6
"""Effects below this part of a coalition's worth are no unit, as worths would overflow when they are squared."""


ELEMENTS_AT_ONCE = 2**13


@dataclass(frozen=True)
class Prior(Record):
    """An explainer's proposal, before the efficiency correction and before coalitions of 2 to M - 2 players are used.

    Attributes:
        attributions: ``(*batch, M)``, in units of the output.
        spread: ``(*batch, M)``, shares of the gap; they sum to 1 over the players.
        scale: ``(*batch,)``, the row's scale in units of the output.
        features: ``(*batch, M, H)``, the network's features of each player, in units of the output; 0 without effects.
        additive, rates: ``(*batch, M)``, the covariance of :mod:`captum_meta.estimators.hypercube`; None for paths.
    """

    attributions: Float[Tensor, "*batch M"]
    spread: Float[Tensor, "*batch M"]
    scale: Float[Tensor, "*batch"]
    features: Float[Tensor, "*batch M W"]
    additive: Float[Tensor, "*batch M"] | None = None
    rates: Float[Tensor, "*batch M"] | None = None


@dataclass(frozen=True)
class Prediction(Record):
    """Attributions that satisfy efficiency, and by how much the raw ones missed it.

    Attributes:
        attributions: ``(*batch, M)``, in units of the output; 0 for padding.
        gap: ``(*batch,)``, sum of the raw attributions minus (f(input) - f(baseline)).
    """

    attributions: Float[Tensor, "*batch M"] = field(metadata=part("M", scale=1))
    gap: Float[Tensor, "*batch"] = field(metadata=part(scale=1))


class Explainer(Described, nn.Module, ABC):
    """A network from evidence to a :class:`Prior`, and the correction that makes it an explanation."""

    kind: Kind
    reading: tuple[str, ...] = ()
    """Patterns of the parameters that read the last hidden units; all others produce them. Empty: no such split."""

    @abstractmethod
    def prior(self, evidence: Evidence, hidden: Float[Tensor, "*batch M W"] | None = None) -> Prior:
        """The network's answer before corrections, and its uncertainty.

        Args:
            evidence: of the rows.
            hidden: their :meth:`hidden`, computed if it is None.
        """

    def trained_prior(self, evidence: Evidence, features: bool = True) -> Prior:
        """:meth:`prior` with the trained parameters, which may be cheaper.

        Args:
            evidence: of the rows.
            features: whether the answer must have its features.
        """
        return self.prior(evidence)

    def elements_at_once(self, evidence: Evidence) -> int:
        """Players times path intervals to be read at once, so that their numbers stay in the cache."""
        return ELEMENTS_AT_ONCE

    def hidden(self, evidence: Evidence) -> Float[Tensor, "*batch M W"]:
        """The last hidden units, which the parameters of ``reading`` do not change."""
        raise NotImplementedError(f"{type(self).__name__} does not tell its hidden units from what reads them.")

    def complete(self, prior: Prior, evidence: Evidence) -> Prediction:
        """Spread the gap to f(input) - f(baseline) over the players."""
        gap = prior.attributions.sum(-1) - evidence.total
        return Prediction(prior.attributions - prior.spread * gap.unsqueeze(-1), gap)

    def complete_with_error(self, prior: Prior, evidence: Evidence) -> tuple[Prediction, Float[Tensor, "*batch"]]:
        """The answers of :meth:`complete` and :meth:`estimate_error`, at little more than the cost of the first."""
        prediction = self.complete(prior, evidence)
        return prediction, self.estimate_error(prior, evidence, prediction.attributions)

    def estimate_error(
        self, prior: Prior, evidence: Evidence, attributions: Float[Tensor, "*batch M"]
    ) -> Float[Tensor, "*batch"]:
        """The relative squared error that nine in ten rows stay below, ``(*batch,)``; NaN where it cannot be estimated."""
        return torch.full_like(evidence.total, torch.nan)

    def forward(self, evidence: Evidence) -> Prediction:
        return self.complete(self.prior(evidence), evidence)


def row_scale(evidence: Evidence) -> Float[Tensor, "*batch"]:
    """Root mean square of the measured effects plus |f(input) - f(baseline)| / M, ``(*batch,)``; at least tiny.

    Where both are 0, or next to nothing beside the coalitions' worths, it is the root mean square of these; of a path where
    both are 0, the largest change of f along it.
    """
    measured = evidence.measured & evidence.players.unsqueeze(-1)
    squares = torch.where(measured, evidence.effects, 0.0).square().sum((-2, -1))
    return scale_of(squares, measured.sum((-2, -1)), evidence)


def scale_of(squares: Tensor, count: Tensor, evidence: Evidence) -> Tensor:
    """:func:`row_scale` from the sums of squares of the measured effects, and how many these are, both ``(*batch,)``."""
    rms = (squares / count.clamp(min=1)).sqrt()
    scale = rms + evidence.total.abs() / evidence.n_players.clamp(min=1)
    coalitions, otherwise = evidence.coalitions, evidence.curve.abs().amax(-1)
    least = torch.zeros_like(scale)
    if coalitions is not None:
        worths = torch.where(coalitions.measured, coalitions.worths, 0.0).square().sum(-1)
        otherwise = (worths / coalitions.measured.sum(-1).clamp(min=1)).sqrt()
        least = _NOTHING * otherwise
    scale = torch.where(scale > least, scale, otherwise)
    return scale.clamp(min=torch.finfo(scale.dtype).tiny)


def gap_shares(weights: Float[Tensor, "*batch M"], players: Bool[Tensor, "*#batch M"]) -> Float[Tensor, "*batch M"]:
    """Normalise non-negative ``weights`` over the players; evenly where all are zero.

    >>> gap_shares(torch.tensor([[1.0, 3.0, 9.0], [0.0, 0.0, 0.0]]), torch.tensor([True, True, False]))
    tensor([[0.2500, 0.7500, 0.0000],
            [0.5000, 0.5000, 0.0000]])
    """
    weights = torch.where(players, weights, 0.0)
    totals = weights.sum(-1, keepdim=True)
    even = players.to(weights) / players.sum(-1, keepdim=True).clamp(min=1)
    return torch.where(totals > 0, weights / torch.where(totals > 0, totals, 1.0), even)
