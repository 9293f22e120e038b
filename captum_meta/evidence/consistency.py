"""Whether gradients along a path are those of f, and complete: evaluations of f that tell, where there is doubt."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_meta.estimators import (
    FINE,
    OFFSETS,
    change_along,
    inconsistent_gradients,
    interval_weights,
    is_no_derivative,
    leaves_doubt,
    suspected_steps,
)
from captum_meta.games import Game

_HALVINGS, _LAST = 12, 3
"""Of an interval between gradients in which f may jump, and of these the last, in which a jump stays as large as it is."""
_ROUNDING = 32
"""Units in the last place by which f may be rounded."""


@np.errstate(invalid="ignore", over="ignore")
def inconsistent_rows(game: Game, points: Tensor, sums: Tensor, curve: Tensor, total: Tensor, output: int = 0) -> Tensor:
    """Rows whose gradients do not explain how f changes, ``(N,)``.

    They are not those of f on more than half of the path (:func:`~captum_meta.estimators.inconsistent_gradients`), or f
    jumps (:func:`stepping_rows`). In half precision neither can be told: f is rounded as roughly as such gradients are
    wrong.

    Args:
        game: the explained model and the rows.
        points, sums, curve: ``(N, G)``, of the path; gradients times (input - baseline) there, summed over the players;
            and f there minus f at the baseline.
        total: ``(N,)``, f at the input minus f at the baseline.
        output: which of the game's outputs f is.
    """
    if not _exact(game):
        return torch.zeros_like(total, dtype=torch.bool)
    given = tuple(map(_numbers, (points, sums, curve, total)))
    found = torch.from_numpy(inconsistent_gradients(*given)).to(total.device)
    zero = np.zeros((len(total), 1))
    at = np.concatenate([zero, given[0], zero + 1], axis=1)
    values = np.concatenate([zero, given[2], given[3][:, None]], axis=1)
    beside = np.concatenate([given[1][:, :1], given[1], given[1][:, -1:]], axis=1)
    rows = np.repeat(np.arange(len(total)), at.shape[1] - 1)
    sides, around = (np.stack([part[:, :-1].ravel(), part[:, 1:].ravel()], axis=1) for part in (at, beside))
    between, least = suspected_steps(rows, sides, np.diff(values).ravel(), around)
    return found | stepping_rows(game, between, np.where(found.cpu().numpy(), 0.0, least), output)


def stepping_rows(
    game: Game, between: NDArray[np.float64], least: NDArray[np.float64], output: int = 0, halvings: int = _HALVINGS
) -> Tensor:
    """Rows in which f jumps from one value to another, as at a hard gate, ``(N,)``: no gradient tells whose the jump is.

    The interval in which it may be is halved as often as that, each time to the half in which f changes by more. What is
    smooth changes by half as much in half of an interval, a jump by as much as before.

    Args:
        game: the explained model and the rows.
        between: ``(N, 2)``, the points of the path between which f may jump
            (:func:`~captum_meta.estimators.suspected_steps`).
        least: ``(N,)``, the smallest jump that matters; 0 for rows that are not looked at.
        output: which of the game's outputs f is.
        halvings: the most, more than three.
    """
    steps = torch.zeros(len(least), dtype=torch.bool, device=game.device)
    rows = torch.from_numpy(least.nonzero()[0]).to(game.device)
    if len(rows) == 0 or not _exact(game):
        return steps
    sides, small = (torch.from_numpy(part).to(game.device)[rows] for part in (between, least))
    values = _values_at(game, rows, sides)[..., output]
    rounding = _ROUNDING * torch.finfo(values.dtype).eps * values.abs().amax(1)
    small, changes = torch.maximum(small, rounding), values.new_zeros(len(rows), 0)
    for _ in range(halvings):
        middle = _values_at(game, rows, sides.mean(1, keepdim=True))[..., output]
        sides, values = _larger_half(sides, torch.cat([values, middle], dim=1))
        changes = torch.cat([changes, values.diff(dim=1).abs()], dim=1)
        left = changes[:, -1] > small
        rows, sides, small, values, changes = (part[left] for part in (rows, sides, small, values, changes))
        if len(rows) == 0:
            return steps
    steps[rows] = changes[:, -1] > changes[:, -1 - _LAST] / 2
    return steps


def _larger_half(sides: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Of intervals ``(R, 2)`` the halves in which f changes by more, and f at their ends.

    ``values (R, 3)`` are f at both ends and halfway.
    """
    first, last, middle = values.unbind(1)
    before = ((middle - first).abs() > (last - middle).abs()).unsqueeze(1)
    halfway = sides.mean(1)
    halves = torch.stack([sides[:, 0], halfway], 1), torch.stack([halfway, sides[:, 1]], 1)
    at = torch.stack([first, middle], 1), torch.stack([middle, last], 1)
    return torch.where(before, *halves), torch.where(before, *at)


def _values_at(game: Game, rows: Tensor, points: Tensor) -> Tensor:
    """f of the rows ``(R,)`` at points ``(R, G)`` of their paths, ``(R, G, K)``; NaN if others must be beside them."""
    if game.together:
        everyone = points.new_full((game.n_examples, points.shape[1]), 0.5).index_copy(0, rows, points)
        return game.at(everyone)[rows]
    part = game.take(rows)
    values = part.at(points)
    return torch.full_like(values, torch.nan) if part.together else values


def wrong_slopes(
    game: Game, points: Tensor, sums: Tensor, total: Tensor, doubtful: Tensor | None = None, output: int = 0
) -> Tensor:
    """Rows whose gradients are not the derivatives of f (:func:`~captum_meta.estimators.is_no_derivative`), ``(N,)``.

    A row is looked at where its gradients miss much of the change of f: five evaluations, around the point that is nearest
    to the middle of its path.

    Args:
        game: the explained model and the rows.
        points: ``(N, G)``, of the path.
        sums: ``(N, G)``, gradients times (input - baseline) there, summed over the players.
        total: ``(N,)``, f at the input minus f at the baseline.
        doubtful: ``(N,)``, the rows that are looked at; None for those whose quadrature misses much.
        output: which of the game's outputs f is.
    """
    wrong = torch.zeros_like(total, dtype=torch.bool)
    if not _exact(game):
        return wrong
    weights = _numbers(interval_weights(points).sum(-2))
    given, change = _numbers(sums), _numbers(total)
    some = leaves_doubt(given, weights, change) if doubtful is None else doubtful.cpu().numpy()
    rows = torch.from_numpy(some).nonzero().flatten()
    if len(rows) == 0:
        return wrong
    place = (points - 0.5).abs().argmin(-1, keepdim=True)
    chosen = rows.to(points.device)
    values = _values_at(game, chosen, (points.gather(1, place) + points.new_tensor(OFFSETS))[chosen])
    slope = sums.gather(1, place)[chosen, 0]
    size = change_along(given, weights, change)[some]
    found = is_no_derivative(_numbers(slope), _numbers(values[..., output]), size, torch.finfo(values.dtype).eps)
    wrong[chosen] = torch.from_numpy(found).to(wrong.device)
    return wrong


def _exact(game: Game) -> bool:
    """Whether inputs and outputs have so many digits that slopes and jumps differ from rounding."""
    return game.precision < FINE and all(
        torch.finfo(part.dtype).eps < FINE for part in game.inputs if part.is_floating_point()
    )


def _numbers(values: Tensor) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return numbers
