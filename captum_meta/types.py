"""The plain data that floors hand to each other: evidence, coalitions, explanations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Literal, TypeVar

import torch
from torch import Tensor

Kind = Literal["shapley", "path", "general"]
"""What is predicted: Shapley values, path integrals, or whatever a teacher says that no explainer was trained on."""

_T = TypeVar("_T", bound="_Rows")


@dataclass(frozen=True)
class _Rows:
    """Tensors (or nested rows, or None) that share their leading batch dimensions."""

    def map(self: _T, function: Callable[[Tensor], Tensor]) -> _T:
        """Apply ``function`` to every tensor."""

        def apply(value: object) -> object:
            if isinstance(value, _Rows):
                return value.map(function)
            return function(value) if isinstance(value, Tensor) else value

        return type(self)(**{field.name: apply(getattr(self, field.name)) for field in fields(self)})

    def __getitem__(self: _T, rows: int | slice | Tensor | tuple[slice | Tensor | int, ...]) -> _T:
        return self.map(lambda tensor: tensor[rows])

    def to(self: _T, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> _T:
        """Move to ``device``; floating tensors also to ``dtype``."""
        return self.map(lambda tensor: tensor.to(device, dtype if tensor.is_floating_point() else None))

    def detach(self: _T) -> _T:
        """The same rows outside any autograd graph."""
        return self.map(Tensor.detach)

    @classmethod
    def concatenate(cls: type[_T], parts: Sequence[_T], dim: int = 0) -> _T:
        """Join rows along the batch dimension ``dim``; what one part lacks, the result lacks."""

        def join(values: Sequence[object]) -> object:
            if any(value is None for value in values):
                return None
            if isinstance(values[0], _Rows):
                return type(values[0]).concatenate(values, dim)  # type: ignore[arg-type]
            return torch.cat(values, dim)  # type: ignore[arg-type]

        return cls(**{field.name: join([getattr(part, field.name) for part in parts]) for field in fields(cls)})

    @classmethod
    def stack(cls: type[_T], parts: Sequence[_T]) -> _T:
        """Put rows of equal shapes behind a new leading dimension (a batch of tasks)."""
        return cls.concatenate([part.map(lambda tensor: tensor.unsqueeze(0)) for part in parts])


@dataclass(frozen=True)
class Coalitions(_Rows):
    """Coalitions evaluated on the explained model, in pairs: each is followed by its complement among the row's players.

    Attributes:
        members: ``(*batch, S, M)`` bool, True where the player keeps the input's value.
        worths: ``(*batch, S)``, f of the coalition minus f of the baseline, in units of the output.
        measured: ``(*batch, S)`` bool, False for padding.
        slopes: ``(*batch, S, M, D)``, gradient of f at the coalition with respect to each player's elements, for learners
            that model f; None where that was not asked for, or f has none.
    """

    members: Tensor
    worths: Tensor
    measured: Tensor
    slopes: Tensor | None = None

    def first(self, count: int) -> Coalitions:
        """The first ``count`` of them."""
        return Coalitions(self.members[..., :count, :], self.worths[..., :count], self.measured[..., :count])


@dataclass(frozen=True)
class Evidence(_Rows):
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
        inputs: ``(*batch, M, V)``, what the players' inputs and baselines are, for encoders that compare rows.
        elements: ``(*batch, M, D, 2)``, each element of the players' inputs and baselines, for learners that model f, as
            :meth:`captum_meta.evidence.Players.gather` has them.
        embedding: ``(*batch, E)``, output of a module of the explained model, where an encoder names one.
        targets: ``(*batch,)`` int64, which output of the model was explained, for learners that model it; None where
            that is not one number.
    """

    effects: Tensor
    measured: Tensor
    players: Tensor
    total: Tensor
    curve: Tensor
    points: Tensor
    coalitions: Coalitions | None = None
    inputs: Tensor | None = None
    elements: Tensor | None = None
    embedding: Tensor | None = None
    targets: Tensor | None = None

    @property
    def n_players(self) -> Tensor:
        """``(*batch,)``, the number of real players of each row."""
        return self.players.sum(-1)

    def times(self, factor: Tensor) -> Evidence:
        """Evidence of the model times ``factor``, whose dimensions are the first of the batch's."""

        def scaled(value: Tensor) -> Tensor:
            return value * factor.reshape(*factor.shape, *[1] * (value.dim() - factor.dim())).to(value)

        return replace(
            self,
            effects=scaled(self.effects),
            total=scaled(self.total),
            curve=scaled(self.curve),
            coalitions=self.coalitions
            and replace(
                self.coalitions,
                worths=scaled(self.coalitions.worths),
                slopes=None if self.coalitions.slopes is None else scaled(self.coalitions.slopes),
            ),
        )

    def gradients_alone(self) -> Evidence:
        """What would have been measured of the Shapley kind without any coalition."""
        kept = torch.arange(self.effects.shape[-1], device=self.effects.device) < LEAVE_ONE_OUT
        effects = torch.where(kept, self.effects, 0.0)
        return replace(self, effects=effects, measured=self.measured & kept, coalitions=None)


SHAPLEY_POINTS = (1.0, 0.5, 0.0)
SHAPLEY_CHANNELS = ("gradient at input", "gradient midway", "gradient at baseline", "leave-one-out", "add-one-in")
LEAVE_ONE_OUT, ADD_ONE_IN = 3, 4


@dataclass(frozen=True)
class Reading:
    """What a learner reads of the explained model beside gradients and coalitions of the rows themselves.

    Attributes:
        evaluations: for each player of a support row, spent on further coalitions of it and f's gradient there, for learners
            that model f; the elements of the players are then read too.
        most_players: of rows with more players neither is read.
        layer: name of the model's module whose output is read.
    """

    evaluations: int = 0
    most_players: int = 64
    layer: str | None = None

    def evaluations_of(self, n_players: int) -> int:
        """Evaluations spent on a support row with so many players."""
        return self.evaluations * n_players if n_players <= self.most_players else 0


@dataclass(frozen=True)
class Explanations(_Rows):
    """Evidence of rows together with the answers that a teacher gave for them.

    Attributes:
        evidence: evidence of the rows.
        attributions: ``(*batch, M)``; 0 for padding.
        variance: ``(*batch, M)``, variance of the noise in ``attributions``; None where they are exact.
        labels: ``(*batch,)`` int64, the target that was explained; None where there is none.
    """

    evidence: Evidence
    attributions: Tensor
    variance: Tensor | None = None
    labels: Tensor | None = None

    def __len__(self) -> int:
        return int(self.attributions.shape[-2])


State = dict[str, Tensor]
"""What a meta-learner knows of one explained model after adaptation: plain tensors by name."""


@dataclass(frozen=True)
class ExplanationTask(_Rows):
    """One explained model: a support set to adapt on, and a query set to explain."""

    support: Explanations
    query: Explanations
