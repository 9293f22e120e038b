"""References of attributions: exact values, or long runs of methods that are not ours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.games import Game
from captum_meta.games.references import exact_shapley_values, path_mean, permutation_gains

_MAX_ROWS, _MAX_ELEMENTS = 2**17, 2**23
_POINTS, _PIECES = 50, 40


@dataclass(frozen=True)
class Reference:
    """Attributions taken as right.

    Attributes:
        values: ``(N, M)``.
        standard_error: ``(N, M)``, of the sampled ones; zero where they are exact.
        method: how they were computed.
    """

    values: Tensor
    standard_error: Tensor
    method: str

    @property
    def error(self) -> float:
        """The relative squared error that the reference itself is expected to have."""
        return float(self.standard_error.square().sum() / self.values.square().sum())


def _nothing() -> None:
    pass


def _rows_at_once(game: Game) -> int:
    """Many small rows together; few large ones."""
    elements = sum(part[0].numel() for part in game.inputs)
    return max(1, min(_MAX_ROWS, _MAX_ELEMENTS // elements))


def exact_shapley(game: Game, advance: Callable[[], None] = _nothing) -> Reference:
    """Shapley values from all coalitions; ``advance`` is called after each row."""
    game.evaluation.max_rows = _rows_at_once(game)

    def worths(members: Tensor) -> Tensor:
        found = []
        for row in range(game.n_rows):
            found.append(game.take(torch.tensor([row], device=game.device)).values(members.unsqueeze(0)).squeeze(-1))
            advance()
        return torch.cat(found).double()

    values = exact_shapley_values(worths, game.players.count, game.device).float()
    return Reference(values, torch.zeros_like(values), f"exact, from all {2**game.players.count} coalitions")


def sampled_shapley(game: Game, pairs: int, seed: int = 1, advance: Callable[[], None] = _nothing) -> Reference:
    """Shapley values as means over antithetic pairs of permutations: unbiased; ``advance`` is called after each 100.

    Reference: Mitchell, Cooper, Frank and Holmes, *Sampling Permutations for Shapley Value Estimation*, JMLR 2022.
    """
    n_players = game.players.count
    game.evaluation.max_rows = _rows_at_once(game)

    def values(members: Tensor) -> Tensor:
        return game.values(members.flatten(1, 2)).squeeze(-1).double().unflatten(1, members.shape[1:3])

    total = torch.zeros(game.n_rows, n_players, dtype=torch.float64, device=game.device)
    squares = torch.zeros_like(total)
    for some in torch.arange(pairs, device=game.device).split(100):
        order = uniform(some, (n_players,), seed).argsort(-1).expand(game.n_rows, -1, -1)
        both = (permutation_gains(values, order) + permutation_gains(values, order.flip(-1))) / 2
        total += both.sum(1)
        squares += both.square().sum(1)
        advance()
    mean = total / pairs
    variance = (squares / pairs - mean.square()).clamp(min=0) / max(1, pairs - 1)
    return Reference(mean.float(), variance.sqrt().float(), f"mean over {pairs} antithetic pairs of permutations")


def long_path(game: Game, advance: Callable[[], None] = _nothing) -> Reference:
    """Integrated Gradients from 40 pieces of the path with 50 Gauss-Legendre points each; ``advance`` after each piece.

    Raises:
        RuntimeError: if the model has no gradient.
    """

    def effects(points: Tensor) -> Tensor:
        measured = game.effects(points)
        if measured is None:
            raise RuntimeError(
                "The model has no gradient, which path integrals are made of: compare Shapley values, kind='shapley'."
            )
        advance()
        return measured[0].squeeze(-1)

    values = path_mean(effects, _POINTS, _PIECES).float()
    return Reference(values, torch.zeros_like(values), f"Integrated Gradients with {_POINTS * _PIECES} points")
