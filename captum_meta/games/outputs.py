"""Several outputs of the explained model, each a game of its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_meta.games.arguments import Outputs
from captum_meta.games.game import Game
from captum_meta.games.remembered import RememberedGame

_MAX_NUMBERS = 2**26
"""Gradients of all outputs that are kept at once."""


class OutputGame(Game):
    """One of several outputs of a game.

    Points of the path common to all rows are evaluated once for all outputs, as far as memory allows.

    Args:
        everything: the game of all of these outputs, which has been evaluated.
        place: its index among them.
        target: what selects this one alone.

    >>> calls = []
    >>> def model(x):
    ...     calls.append(len(x))
    ...     return torch.stack([x.sum(1), x.prod(1)], dim=1)
    >>> game = Game(model, torch.tensor([[2.0, 3.0]]), None, Outputs())
    >>> first, second = each_output(game)
    >>> before, points = len(calls), torch.tensor([0.5])
    >>> first.gradients(points)[0].flatten().tolist(), second.gradients(points)[0].flatten().tolist(), len(calls) - before
    ([1.0, 1.0], [1.5, 1.0], 1)
    """

    def __init__(self, everything: RememberedGame, place: int, target: Any) -> None:
        self.__dict__.update(vars(everything.of(replace(everything.batch, target=target))))
        self._everything, self._place = everything, slice(place, place + 1)
        self.evaluation.together = everything.evaluation.together

    @property
    def coupled(self) -> bool:
        """Whether a row's value depends on the other rows; known after the first gradients."""
        return self.evaluation.coupled or self._everything.coupled

    def at(self, points: Tensor) -> Tensor:
        return super().at(points) if points.dim() > 1 else self._everything.at(points)[..., self._place]

    def gradients(self, points: Tensor) -> tuple[Tensor, Tensor] | None:
        numbers = len(self.batch) * self.batch.elements * len(points) * self._everything.output_shape.numel()
        if points.dim() > 1 or numbers > _MAX_NUMBERS:
            return super().gradients(points)
        found = self._everything.gradients(points)
        return found and (found[0][..., self._place], found[1][..., self._place])


def each_output(game: Game) -> list[Game]:
    """The games of a game's single outputs, in order; the game itself where a target selects one.

    Their number is known after an evaluation.
    """
    target = game.batch.target
    if not isinstance(target, Outputs):
        return [game]
    game.at(torch.ones(1))
    everything, targets = RememberedGame(game), list(target.indices or _places(game.output_shape))
    return [OutputGame(everything, place, one) for place, one in enumerate(targets)]


def _places(shape: torch.Size) -> list[Any]:
    """What selects each of all outputs, in the order in which they lie."""
    places = [tuple(place) for place in torch.ones(tuple(shape)).nonzero().tolist()]
    return [None] if len(places) == 1 else [place[0] if len(place) == 1 else place for place in places]
