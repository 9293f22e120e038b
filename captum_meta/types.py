"""The plain data that floors hand to each other: evidence, coalitions, explanations."""

from __future__ import annotations

from dataclasses import dataclass, field, fields, replace
from typing import Literal

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from captum_meta.records import Record, part

Kind = Literal["shapley", "path", "general"]
"""The kind of attributions: Shapley values, path integrals, or those of any other teacher."""


@dataclass(frozen=True)
class Coalitions(Record):
    """Coalitions evaluated on the explained model, in pairs: each is followed by its complement among the row's players.

    Attributes:
        members: ``(*batch, S, M)`` bool, True where the player keeps the input's value.
        worths: ``(*batch, S)``, f of the coalition minus f of the baseline, in units of the output.
        measured: ``(*batch, S)`` bool, False for padding.
        gradients: ``(*batch, S, M, D)``, gradient of f at the coalition with respect to each player's elements, for learners
            that model f; None where that was not asked for, or f has none.
    """

    members: Bool[Tensor, "*batch S M"] = field(metadata=part("S M"))
    worths: Float[Tensor, "*batch S"] = field(metadata=part("S", scale=1))
    measured: Bool[Tensor, "*batch S"] = field(metadata=part("S"))
    gradients: Float[Tensor, "*batch S M D"] | None = field(default=None, metadata=part("S M D", scale=1))

    def first(self, count: int) -> Coalitions:
        """The first ``count`` of them."""
        return self.shortened(S=count)

    def pairs(self) -> Int64[Tensor, "*batch"]:
        """Number of coalitions measured together with their complements, ``(*batch,)``."""
        return self.measured.unflatten(-1, (-1, 2)).all(-1).sum(-1)

    def beyond_border(self, players: Bool[Tensor, "*batch M"]) -> Bool[Tensor, "*batch"]:
        """Rows ``(*batch,)`` with measured coalitions beyond the border, or with all there are.

        Args:
            players: ``(*batch, M)`` bool, False for padding.

        >>> members = torch.tensor([[1, 0, 0, 0], [0, 1, 1, 1], [1, 1, 0, 0], [0, 0, 1, 1]]).bool()
        >>> measured = torch.tensor([[True, True, False, False], [True, True, True, True]])
        >>> coalitions = Coalitions(members.expand(2, 4, 4), torch.zeros(2, 4), measured)
        >>> coalitions.beyond_border(torch.ones(2, 4).bool()).tolist()
        [False, True]
        """
        sizes, n_players = self.members.sum(-1), players.sum(-1)
        inside = self.measured & (sizes > 1) & (sizes < n_players.unsqueeze(-1) - 1)
        return inside.any(-1) | ((n_players > 1) & (self.pairs() >= 2.0 ** (n_players - 1) - 1))


def _channels_reversed(values: Shaped[Tensor, "*batch M C"], evidence: Evidence) -> Shaped[Tensor, "*batch M C"]:
    """Gradients along the path in reverse, and the channels of its ends exchanged."""
    count = evidence.points.shape[-1]
    return torch.cat([values[..., :count].flip(-1), values[..., count:].flip(-1)], dim=-1)


def _coalitions_reversed(coalitions: Coalitions, evidence: Evidence) -> Coalitions:
    return Coalitions(
        ~coalitions.members & evidence.players.unsqueeze(-2),
        evidence.total.unsqueeze(-1) - coalitions.worths,
        coalitions.measured,
        None if coalitions.gradients is None else -coalitions.gradients,
    )


def _sides_reversed(values: Tensor, evidence: Evidence) -> Tensor:
    return values.flip(-1)


@dataclass(frozen=True)
class Evidence(Record):
    """What was measured on the explained model, for rows of ``M`` players and ``C`` channels.

    The first ``G`` channels are the input's difference from the baseline times the gradient at ``G`` points of the
    straight path from baseline to input. For the Shapley kind these points are 1, 1/2 and 0 and two channels follow:
    leave-one-out and add-one-in (:data:`SHAPLEY_POINTS`, :data:`SHAPLEY_CHANNELS`). For the path kind they are the
    nodes of a quadrature and there are no other channels.

    Attributes:
        effects: ``(*batch, M, C)``, in units of the output; 0 where not measured.
        measured: ``(*batch, M, C)`` bool.
        players: ``(*batch, M)`` bool, False for padding of rows with fewer players.
        total: ``(*batch,)``, f(input) - f(baseline).
        curve: ``(*batch, G)``, f minus f(baseline) at the path points; 0 where not measured.
        points: ``(*batch, G)``, the path points in [0, 1].
        coalitions: all coalitions evaluated, where any has 2 to M - 2 members or they are all there are; otherwise None.
            Those of one player and of all but one are the border; coalitions inside the border have 2 to M - 2 members.
        inputs: ``(*batch, M, V)``, what the players' inputs and baselines are, for encoders that compare rows.
        elements: ``(*batch, M, D, 2)``, each element of the players' inputs and baselines, for learners that model f, as
            :meth:`captum_meta.evidence.Players.gather` has them.
        embedding: ``(*batch, E)``, output of a module of the explained model, where an encoder names one.
        targets: ``(*batch,)`` int64, which output of the model was explained, for learners that model it; None where
            that is not one number.
    """

    effects: Float[Tensor, "*batch M C"] = field(metadata=part("M C", scale=1, reverse=_channels_reversed))
    measured: Bool[Tensor, "*batch M C"] = field(metadata=part("M C", reverse=_channels_reversed))
    players: Bool[Tensor, "*batch M"] = field(metadata=part("M"))
    total: Float[Tensor, "*batch"] = field(metadata=part(scale=1))
    curve: Float[Tensor, "*batch G"] = field(
        metadata=part("G", scale=1, reverse=lambda curve, evidence: evidence.total.unsqueeze(-1) - curve.flip(-1))
    )
    points: Float[Tensor, "*batch G"] = field(metadata=part("G", reverse=lambda points, evidence: 1 - points.flip(-1)))
    coalitions: Coalitions | None = field(default=None, metadata=part(reverse=_coalitions_reversed))
    inputs: Float[Tensor, "*batch M V"] | None = field(default=None, metadata=part("M V", reverse=_sides_reversed))
    elements: Float[Tensor, "*batch M D 2"] | None = field(default=None, metadata=part("M D V", reverse=_sides_reversed))
    embedding: Float[Tensor, "*batch E"] | None = field(default=None, metadata=part("E"))
    targets: Int64[Tensor, "*batch"] | None = field(default=None, metadata=part())

    @property
    def n_players(self) -> Int64[Tensor, "*batch"]:
        """``(*batch,)``, the number of real players of each row."""
        return self.players.sum(-1)

    @property
    def acting(self) -> Bool[Tensor, "*batch M"]:
        """``(*batch, M)`` bool, real players but those of whom all that was measured is zero."""
        return self.players & ~(self.measured.any(-1) & (self.effects == 0).all(-1))

    def reversed(self) -> Evidence:
        """Evidence of -f on the way from the input to the baseline.

        Of paths, whose integrals are the same; and of the dual game v*(S) = v(N) - v(N without S), whose Shapley values are
        the same.
        """
        return replace(
            self,
            **{
                field.name: field.metadata["reverse"](getattr(self, field.name), self)
                for field in fields(self)
                if field.metadata["reverse"] is not None and getattr(self, field.name) is not None
            },
        )

    def without_coalitions(self) -> Evidence:
        """The evidence without the coalitions inside the border, as the network reads it."""
        return replace(self, coalitions=None)

    def gradients_alone(self) -> Evidence:
        """Evidence of the Shapley kind as measured without any coalition."""
        kept = torch.arange(self.effects.shape[-1], device=self.effects.device) < LEAVE_ONE_OUT
        effects = torch.where(kept, self.effects, 0.0)
        return replace(self, effects=effects, measured=self.measured & kept, coalitions=None)


SHAPLEY_POINTS = (1.0, 0.5, 0.0)
SHAPLEY_CHANNELS = ("gradient at input", "gradient midway", "gradient at baseline", "leave-one-out", "add-one-in")
LEAVE_ONE_OUT, ADD_ONE_IN = 3, 4


@dataclass(frozen=True)
class Reading:
    """What a learner reads of the explained model beside the rows' own gradients and coalitions.

    Attributes:
        evaluations: for each player of a support row, spent on further coalitions of it and f's gradient there, for learners
            that model f; the elements of the players are then read too.
        most_players: rows with more players have neither.
        layer: name of the model's module whose output is read.
    """

    evaluations: int = 0
    most_players: int = 64
    layer: str | None = None

    def evaluations_of(self, n_players: int) -> int:
        """Evaluations spent on a support row with so many players."""
        return self.evaluations * n_players if n_players <= self.most_players else 0


@dataclass(frozen=True)
class Explanations(Record):
    """Evidence of rows together with the answers that a teacher gave for them.

    Attributes:
        evidence: evidence of the rows.
        attributions: ``(*batch, M)``; 0 for padding.
        variance: ``(*batch, M)``, variance of the noise in ``attributions``; None where they are exact.
        labels: ``(*batch,)`` int64, the target that was explained; None where there is none.
    """

    evidence: Evidence
    attributions: Float[Tensor, "*batch M"] = field(metadata=part("M", scale=1))
    variance: Float[Tensor, "*batch M"] | None = field(default=None, metadata=part("M", scale=2))
    labels: Int64[Tensor, "*batch"] | None = field(default=None, metadata=part())

    def __len__(self) -> int:
        return int(self.attributions.shape[-2])

    def without_coalitions(self) -> Explanations:
        """The same rows without the coalitions inside the border, for training the network itself."""
        return replace(self, evidence=self.evidence.without_coalitions())


@dataclass(frozen=True)
class ExplanationTask(Record):
    """One explained model: a support set to adapt on, and a query set to explain."""

    support: Explanations
    query: Explanations
