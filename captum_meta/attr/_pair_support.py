"""Support for calls with background rows: f at pairs of support rows' coalitions and background rows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_meta._warnings import warn
from captum_meta.evidence import PairMeasurement
from captum_meta.games import MeanGame
from captum_meta.games.arguments import Outputs, select_outputs, take_target
from captum_meta.games.players import join

MAX_POINTS = 3072
"""Most pairs and background rows of the process, as its cost is cubic in them. Weighted least squares reads the rest."""
_MOST = 1024
"""Most points of support rows in a row's process, beside its own."""


@dataclass(frozen=True)
class PairSupport:
    """All outputs of the model at some support rows, and at pairs of their coalitions with background rows.

    A support row is one more value that each player may take; in the mean over the background it has no share.

    Attributes:
        game: the mean game of all outputs, of k support rows and K background rows.
        seats: ``(P, M)``, the index of each player's value: 1 to K a background row's, from K + 1 on a support row's.
        outputs: ``(P, *outputs)``, the model's there.
    """

    game: MeanGame
    seats: Tensor
    outputs: Tensor

    @classmethod
    def measured(
        cls,
        model: Callable[..., Any],
        inputs: Any,
        background: Any,
        extra: Any,
        feature_mask: Any,
        each: int,
        per_player: bool,
    ) -> PairSupport:
        """From ``each`` pairs of every support row, or for each of its players.

        Raises:
            ValueError: for additional arguments, rows that act on each other, and masks of each row.
        """
        if extra is not None:
            raise ValueError(
                "With additional_forward_args the model is another function for each row, so that pairs of one do not tell "
                "of another: bind them to forward_func (functools.partial)."
            )
        game = MeanGame(model, inputs, background, Outputs(), None, feature_mask)
        sizes = game.mask.sum(1)
        measurement = PairMeasurement(game, each * sizes if per_player else torch.full_like(sizes, each))
        measurement.evaluate()
        known = cls.of(measurement)
        if not known.serves(game):
            raise ValueError(
                "Support rows beside background rows must be explained one by one, and have the same players: pass a model "
                "that answers for each row alone, and one row of feature_mask for all."
            )
        return known

    @classmethod
    def of(cls, measurement: PairMeasurement) -> PairSupport:
        """From all planned pairs."""
        game, asked = measurement.game, measurement.asked
        own = game.count + 1 + torch.arange(game.n_rows, device=game.device)
        pairs = torch.where(measurement.members, own[:, None, None], measurement.drawn.unsqueeze(-1) + 1)
        seats = torch.cat([own.unsqueeze(1).expand(-1, pairs.shape[-1]), pairs[asked]])
        found = torch.cat([measurement.everyone, measurement.values[asked]])
        known = found.isfinite().all(1)
        return cls(game, seats[known], found[known].unflatten(1, tuple(game.output_shape) or (1,)))

    def joined(self, other: PairSupport) -> PairSupport:
        """The support of both calls.

        Raises:
            ValueError: if they differ in their background rows or players.
        """
        if not self.serves(other.game):
            raise ValueError(
                "These support rows have another background, or other players, than those before: call reset() first."
            )
        seats = torch.where(other.seats > self.game.count, other.seats + self.game.n_rows, other.seats)
        one, two = self.game.game.batch, other.game.game.batch
        inputs = tuple(torch.cat(pair) for pair in zip(one.inputs, two.inputs, strict=True))
        baselines = tuple(torch.cat(pair) for pair in zip(one.baselines, two.baselines, strict=True))
        game = self.game.of(replace(one, inputs=inputs, baselines=baselines))
        return PairSupport(game, torch.cat([self.seats, seats]), torch.cat([self.outputs, other.outputs]))

    def serves(self, game: MeanGame) -> bool:
        """Whether the game has the same background and players, and a model without additional arguments."""
        mine, its = self.game, game
        if its.game.together or its.game.batch.extra or len(its.players.mask) > 1:
            return False
        backgrounds = (join(mine.background), join(its.background))
        own, other = (part.players.groups for part in (mine, its))
        alike = own is None and other is None
        if own is not None and other is not None:
            alike = torch.equal(torch.cat(own, dim=1), torch.cat(other, dim=1))
        return alike and torch.equal(*backgrounds) and torch.equal(mine.weights, its.weights)

    def chosen(self, room: int) -> PairSupport:
        """At most ``room`` points, evenly among all; fewer where their number makes a process slow."""
        room = max(0, min(room, _MOST))
        if len(self.seats) <= room:
            return self
        some = torch.linspace(0, len(self.seats) - 1, room, device=self.seats.device).long()
        return replace(self, seats=self.seats[some], outputs=self.outputs[some])

    def worths(self, game: MeanGame, rows: Tensor) -> Tensor:
        """f of the points, selected by the targets of the ``rows`` of a game."""
        batch = game.game.batch
        single = [take_target(batch.target, row.reshape(1), len(batch)) for row in rows]
        outputs = self.outputs.squeeze(-1) if self.outputs.shape[1:] == (1,) and not self.game.output_shape else self.outputs
        selected = [select_outputs(outputs, _one(target)) for target in single]
        return torch.stack([part.reshape(len(outputs), -1) for part in selected])

    @property
    def half(self) -> Tensor:
        """Points of every other support row."""
        return (self.seats.amax(1) - self.game.count) % 2 == 0


class SupportedPairs(PairMeasurement):
    """Pairs of the rows to be explained, with points of support rows if these serve the game.

    Args:
        game, budgets, seed: as for :class:`PairMeasurement`.
        support: of other rows, or None.

    Attributes:
        support_seats: ``(P, M)``, indices of the players' values at the support points.
        support_half: ``(P,)`` bool, half of the support rows' points.
    """

    def __init__(self, game: MeanGame, budgets: Tensor, seed: int = 0, support: PairSupport | None = None) -> None:
        super().__init__(game, budgets, seed)
        if support is not None and not support.serves(game):
            warn(
                "What adapt() learned with background= is of another background, other players or additional arguments: "
                "these rows are explained without it. Pass the background rows and the feature_mask of adapt()."
            )
            support = None
        self._support = None if support is None else support.chosen(MAX_POINTS - self.members.shape[1] - game.count - 1)
        nothing = torch.zeros(0, game.players.count, dtype=torch.long, device=game.device)
        self.support_seats = nothing if self._support is None else self._support.seats
        self.support_half = nothing[:, :0].any(1) if self._support is None else self._support.half

    @property
    def n_supporting(self) -> int:
        """Support rows."""
        return 0 if self._support is None else self._support.game.n_rows

    @property
    def changed(self) -> Tensor:
        """Players whose value differs in some background row."""
        return self._changed

    def beside(self, values: Tensor) -> Tensor:
        """Each player's values at the rows, the background, and the support rows."""
        if self._support is None:
            return values
        further = self._support.game.player_values()[:, 0].to(values)
        return torch.cat([values, further.expand(len(values), *further.shape)], dim=1)

    def support_worths(self, rows: Tensor, output: int) -> Tensor:
        """f of the points of support, one output of each of the rows."""
        if self._support is None:
            return torch.zeros(len(rows), 0, dtype=torch.float64, device=rows.device)
        return self._support.worths(self.game, rows)[..., output].double()


def _one(target: object) -> object:
    """A single example's target, in the form that fits any number of rows."""
    if isinstance(target, Tensor) and target.numel() == 1:
        return int(target)
    return target[0] if isinstance(target, list) else target
