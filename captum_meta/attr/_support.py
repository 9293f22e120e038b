"""The support set of a front end: rows of the explained model and their explanations."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from captum_meta._random import row_keys
from captum_meta.evidence import EvidencePlan, Game, joined
from captum_meta.games import RememberedGame
from captum_meta.types import Explanations


@dataclass(frozen=True)
class Support:
    """Games with the attributions ``(N, M)`` of their players, in the order in which they were given.

    Attributes:
        parts: the games, their attributions, and the variance of the noise in these; None where they are exact.
        keys: ``(K,)`` int64 on the CPU, :func:`content_keys` of all rows.
    """

    parts: tuple[tuple[RememberedGame, Tensor, Tensor | None], ...] = ()
    keys: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.long))

    @property
    def empty(self) -> bool:
        """Whether nothing has been explained yet."""
        return not self.parts

    def extended(
        self, game: RememberedGame, attributions: Tensor, variance: Tensor | None, inputs: tuple[Tensor, ...]
    ) -> Support:
        """This support set with further rows, of which ``inputs`` were passed."""
        return Support((*self.parts, (game, attributions, variance)), torch.cat([self.keys, content_keys(inputs).cpu()]))

    def explanations(self, plan: EvidencePlan) -> Explanations:
        """All rows, measured as planned, as one set, padded to the largest numbers of players and of coalitions."""
        noisy = any(variance is not None for _, _, variance in self.parts)
        return joined(
            [
                Explanations(
                    plan.measure(game),
                    values,
                    torch.zeros_like(values) if noisy and variance is None else variance,
                    game.labels,
                )
                for game, values, variance in self.parts
            ]
        )


def owned(value: Any) -> Any:
    """A copy of a tensor, or of those of a tuple: what the caller writes into them later is not seen."""
    if isinstance(value, tuple):
        return tuple(owned(part) for part in value)
    if isinstance(value, list):
        return list(value)
    return value.detach().clone() if isinstance(value, Tensor) else value


def player_attributions(attributions: Any, game: Game) -> Tensor:
    """Attributions of the inputs' shapes, with a group's value on each of its elements, or ``(B, groups)``, as ``(N, M)``.

    Raises:
        AssertionError: if the shape is neither.
    """
    given = attributions if isinstance(attributions, tuple) else (attributions,)
    assert all(isinstance(part, Tensor) for part in given), (
        f"attributions are {', '.join(type(part).__name__ for part in given)}: pass a tensor, or a tuple of them."
    )
    shapes = tuple(tuple(part.shape) for part in given)
    count = game.players.count
    expected = tuple((game.n_rows, *shape) for shape in game.players.shapes)
    if shapes == expected:
        ones = tuple(torch.ones_like(part) for part in given)
        size = game.players.collect(ones).clamp(min=1)
        values = game.players.collect(tuple(part.detach() for part in given)) / size
    else:
        assert shapes in (((game.n_rows, count),), ((game.n_rows, game.players.width),)), (
            f"attributions have the shapes {shapes}: pass them in the shapes of the inputs, {expected}, or as "
            f"({game.n_rows}, {count}), one value for each player."
        )
        values = game.players.from_ids(given[0].detach())
    return values


def content_keys(inputs: tuple[Tensor, ...]) -> Tensor:
    """A hash of each row in single precision, ``(B,)`` int64: equal rows have equal keys."""
    return row_keys(tuple(part if part.dtype == torch.bool else part.detach().double().float() for part in inputs))
