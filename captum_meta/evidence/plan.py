"""Plans of what is measured of the explained model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta.estimators import interval_weights
from captum_meta.evidence.measure import measure_support
from captum_meta.evidence.path import measure_bent_path, measure_path
from captum_meta.evidence.rows import with_elements
from captum_meta.evidence.shapley import BORDER_PLAYERS, ShapleyMeasurement
from captum_meta.games import Game
from captum_meta.games.layer import layer_output
from captum_meta.types import Evidence, Reading


@dataclass(frozen=True, kw_only=True)
class EvidencePlan(ABC):
    """What is measured of each row of a game.

    Plans are values: two with the same fields are equal. What was learned of a model from support rows is kept by the plan
    that they were measured by.

    Attributes:
        reading: what the learner reads beside gradients and coalitions.
    """

    reading: Reading = field(default_factory=Reading)

    @abstractmethod
    def measure(self, game: Game) -> Evidence:
        """Evaluate the model as planned; evidence of every row of the game."""

    @abstractmethod
    def of_support(self, n_players: int) -> EvidencePlan:
        """How support rows are measured for queries of ``n_players`` players that are measured by this plan."""

    def read_beside(self, evidence: Evidence, game: Game) -> Evidence:
        """Evidence with what the learner reads beside it: elements of the players, a module's output."""
        if self.reading.evaluations_of(game.players.count):
            evidence = with_elements(evidence, game)
        if self.reading.layer is None:
            return evidence
        embedding = layer_output(game, self.reading.layer).to(evidence.total)
        return replace(evidence, embedding=embedding.repeat_interleave(len(evidence.total) // len(embedding), 0))


@dataclass(frozen=True)
class ShapleyPlan(EvidencePlan):
    """Gradients at baseline, midway and input, and coalitions: those of one player and of all but one come first.

    Attributes:
        coalitions: of each row. None: two for each player where there are at most 256, else none, with a warning.
        per_player: whether they are counted for each of a row's players.
        seed: of the coalitions that follow those of one player and of all but one.
        support: also spend the evaluations that the learner asks for on coalitions of each row.
        border: whether coalitions of one player and of all but one come first in every row. Learners compare rows by these;
            with none to compare, a row may do without (see :class:`~captum_meta.evidence.shapley.ShapleyMeasurement`).

    >>> ShapleyPlan(100).of_support(20) == ShapleyPlan(3, per_player=True, seed=7).of_support(20)
    True
    """

    coalitions: int | None = None
    per_player: bool = False
    seed: int = 0
    support: bool = False
    border: bool = True

    def begin(self, game: Game, spare: int = 0) -> ShapleyMeasurement:
        """The gradients, and coalitions that are evaluated when they are asked for, with ``spare`` ones to choose from."""
        return ShapleyMeasurement(game, self.budgets(game), self.seed, self.border, spare)

    def budgets(self, game: Game) -> int | Tensor | None:
        """Coalitions of each row, a number or ``(N,)``."""
        if self.coalitions is None or not self.per_player:
            return self.coalitions
        return self.coalitions * game.players.mask.sum(1)

    def measure(self, game: Game) -> Evidence:
        evaluations = self.reading.evaluations_of(game.players.count) if self.support else 0
        return self.read_beside(measure_support(game, self.budgets(game), evaluations, self.seed, self.border), game)

    def measure_with_start(self, game: Game) -> tuple[Evidence, Tensor]:
        """Evidence of every row of queries, and f of their baselines ``(N, K)``."""
        measurement = self.begin(game)
        measurement.evaluate()
        return self.read_beside(measurement.evidence(), game), measurement.start

    def of_support(self, n_players: int) -> ShapleyPlan:
        """Learners read no more than the coalitions of one player and of all but one, so larger budgets have one plan."""
        plan = replace(self, seed=0, support=True, border=True)
        if self.coalitions is None and n_players > BORDER_PLAYERS:
            return replace(plan, coalitions=0)
        if self.coalitions is None or self.coalitions >= (2 if self.per_player else 2 * n_players):
            return replace(plan, coalitions=2, per_player=True)
        return plan


@dataclass(frozen=True)
class PathPlan(EvidencePlan):
    """Gradients along the path from baseline to input; every element is a player.

    Attributes:
        steps: gradients of each row.
        method: where they are taken, a name of Captum's. ``"gausslegendre"``: at nodes of each row's own
            (:func:`~captum_meta.estimators.path_nodes`).
    """

    steps: int = 10
    method: str = "gausslegendre"

    def measure(self, game: Game) -> Evidence:
        return self.measure_gradients(game)[0]

    def measure_gradients(self, game: Game) -> tuple[Evidence, Tensor, Tensor]:
        """Evidence, the gradients themselves, ``(N, M, steps)``, and the larger size of f at both ends, ``(N,)``."""
        if self.method == "gausslegendre":
            evidence, gradients, size = measure_bent_path(game, self.steps)
        else:
            points = torch.tensor(_captum.approximation_parameters(self.method)[1](self.steps), dtype=torch.float64)
            evidence, gradients, size = measure_path(game, points.clamp(1e-6, 1 - 1e-6))
        return self.read_beside(evidence, game), gradients, size

    def weights(self, evidence: Evidence) -> Tensor:
        """Weights of the quadrature alone, ``(N, steps)`` or ``(steps,)``."""
        if self.method == "gausslegendre":
            return interval_weights(evidence.points).sum(-2).to(evidence.effects)
        return torch.tensor(_captum.approximation_parameters(self.method)[0](self.steps)).to(evidence.effects)

    def of_support(self, n_players: int) -> PathPlan:
        return self
