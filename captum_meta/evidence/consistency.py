"""Whether gradients along a path are those of f, and complete; checked by evaluations of f where this is in doubt."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from captum_meta.estimators import (
    DOUBTFUL,
    FAR,
    FINE,
    NEAR,
    PLACES,
    change_along,
    inconsistent_gradients,
    interval_weights,
    is_no_derivative,
    missed_part,
    smoothly_inconsistent,
    suspected_steps,
)
from captum_meta.games import Game

_CUTS, _PARTS = 4, 8
"""How often an interval in which f may jump is cut, and into how many parts."""
_ROUNDING, _CHANGED = 32, 16
"""Units in the last place by which f may be rounded, and by which it changes where this hardly matters."""


@np.errstate(invalid="ignore", over="ignore")
def inconsistent_rows(game: Game, points: Tensor, sums: Tensor, curve: Tensor, total: Tensor, output: int = 0) -> Tensor:
    """Rows whose gradients do not explain how f changes, ``(N,)``.

    They are not those of f on more than half of the path (:func:`~captum_meta.estimators.inconsistent_gradients`), or by a
    little all along a smooth one (:func:`~captum_meta.estimators.smoothly_inconsistent`), or f jumps
    (:func:`stepping_rows`). In half precision only the first of these can be told, where f changes by much of its size.

    Args:
        game: the explained model and the rows.
        points, sums, curve: ``(N, G)``, of the path; gradients times (input - baseline) there, summed over the players;
            and f there minus f at the baseline.
        total: ``(N,)``, f at the input minus f at the baseline.
        output: which of the game's outputs f is.
    """
    given = tuple(map(_numbers, (points, sums, curve, total)))
    found = torch.from_numpy(inconsistent_gradients(*given)).to(total.device)
    if not _exact(game):
        return found & _beyond_rounding(game, found, curve, output)
    found |= torch.from_numpy(smoothly_inconsistent(*given)).to(total.device)
    zero = np.zeros((len(total), 1))
    at = np.concatenate([zero, given[0], zero + 1], axis=1)
    values = np.concatenate([zero, given[2], given[3][:, None]], axis=1)
    beside = np.concatenate([given[1][:, :1], given[1], given[1][:, -1:]], axis=1)
    rows = np.repeat(np.arange(len(total)), at.shape[1] - 1)
    sides, around = (np.stack([part[:, :-1].ravel(), part[:, 1:].ravel()], axis=1) for part in (at, beside))
    between, least = suspected_steps(rows, sides, np.diff(values).ravel(), around)
    return found | stepping_rows(game, between, np.where(found.cpu().numpy(), 0.0, least), output)


def stepping_rows(game: Game, between: NDArray[np.float64], least: NDArray[np.float64], output: int = 0) -> Tensor:
    """Rows in which f jumps from one value to another, as at a hard gate, ``(N,)``: no gradient tells whose the jump is.

    The interval in which it may be is cut into eighths four times, each time the one in which f changes most. What is
    smooth changes by an eighth as much in an eighth of an interval, a jump by as much as before.

    Args:
        game: the explained model and the rows.
        between: ``(N, 2)``, the points of the path between which f may jump
            (:func:`~captum_meta.estimators.suspected_steps`).
        least: ``(N,)``, the smallest jump that matters; 0 for rows that are not looked at.
        output: which of the game's outputs f is.
    """
    steps = torch.zeros(len(least), dtype=torch.bool, device=game.device)
    rows = torch.from_numpy(least.nonzero()[0]).to(game.device)
    if len(rows) == 0 or not _exact(game):
        return steps
    sides, small = (torch.from_numpy(part).to(game.device)[rows] for part in (between, least))
    points = _cut(sides)
    some, left, values = _apart(game, rows, points)
    values = values[..., output]
    small = torch.maximum(small, _ROUNDING * torch.finfo(values.dtype).eps * values.abs().amax(1))
    change, place = values.diff(dim=1).abs().max(1, keepdim=True)
    for _ in range(_CUTS - 1):
        on = change[:, 0] > small
        if not bool(on.any()):
            return steps
        rows, left, small, points, values = (part[on] for part in (rows, left, small, points, values))
        before, place = change[on], place[on]
        ends = torch.cat([place, place + 1], dim=1)
        points, values = _cut(points.gather(1, ends)), values.gather(1, ends)
        inner = _values_at(some, left, points[:, 1:-1])[..., output]
        values = torch.cat([values[:, :1], inner, values[:, 1:]], dim=1)
        change, place = values.diff(dim=1).abs().max(1, keepdim=True)
    steps[rows] = (change[:, 0] > small) & (change > before / 2)[:, 0]
    return steps


def _beyond_rounding(game: Game, some: Tensor, curve: Tensor, output: int) -> Tensor:
    """Which ``some (N,)`` of the rows have an f that changes by many units of its precision, ``(N,)``."""
    beyond, rows = torch.zeros_like(some), some.nonzero().flatten()
    if len(rows):
        start = _values_at(game, rows, curve.new_zeros(len(rows), 1))[:, 0, output].abs()
        beyond[rows] = curve[rows].abs().amax(1) > _CHANGED * game.precision * start
    return beyond


def _cut(sides: Tensor) -> Tensor:
    """Ends of the eighths of intervals ``(R, 2)``, ``(R, 9)``."""
    return torch.lerp(sides[:, :1], sides[:, 1:], torch.linspace(0, 1, _PARTS + 1).to(sides))


def _apart(game: Game, rows: Tensor, points: Tensor) -> tuple[Game, Tensor, Tensor]:
    """A game of the rows ``(R,)``, alone unless they belong with all others, their places there, and f at the points.

    Where nothing is known of that, a model that fails on these rows alone is asked with the others.
    """
    if not game.together:
        some, left = game.take(rows), torch.arange(len(rows), device=game.device)
        try:
            return some, left, _values_at(some, left, points)
        except Exception:
            if game.evaluation.together is False or len(rows) == game.n_examples:
                raise
            game.at(torch.ones(1))
    return game, rows, _values_at(game, rows, points)


def _values_at(game: Game, rows: Tensor, points: Tensor) -> Tensor:
    """f of the rows ``(R,)``, ascending, at points ``(R, G)`` of their paths, ``(R, G, K)``."""
    if len(rows) == game.n_examples:
        return game.at(points)
    if game.evaluation.together is None:
        game.at(torch.ones(1))
    if game.together:
        everyone = points.new_full((game.n_examples, points.shape[1]), 0.5).index_copy(0, rows, points)
        return game.at(everyone)[rows]
    return game.take(rows).at(points)


def wrong_slopes(
    game: Game,
    points: Tensor,
    sums: Tensor,
    curve: Tensor,
    total: Tensor,
    output: int = 0,
    doubtful: float = DOUBTFUL,
) -> Tensor:
    """Rows whose gradients are not the derivatives of f (:func:`~captum_meta.estimators.is_no_derivative`), ``(N,)``.

    A row is looked at where its gradients miss some of the change of f: seven evaluations, of f at the baseline and on both
    sides of three gradients. Further away f is asked for only where these say that a gradient is wrong.

    Args:
        game, points, sums, curve, total, output: as of :func:`inconsistent_rows`.
        doubtful: part of what f changes by that gradients may miss before they are checked.
    """
    wrong = torch.zeros_like(total, dtype=torch.bool)
    if not _exact(game):
        return wrong
    weights = _numbers(interval_weights(points).sum(-2))
    at, slopes, heights, change = map(_numbers, (points, sums, curve, total))
    rows = np.flatnonzero(missed_part(slopes, weights, change) > doubtful)
    if len(rows) == 0:
        return wrong

    def around(rows: NDArray[np.int64], *places: NDArray[np.float64]) -> NDArray[np.float64]:
        which, where = (torch.from_numpy(part).to(points.device) for part in (rows, np.concatenate(places, axis=1)))
        return _numbers(_values_at(game, which, where)[..., output])

    count = min(PLACES, points.shape[1])
    nearest = [np.abs(at[rows] - place / (count + 1)).argmin(1) for place in range(1, count + 1)]
    centre, slope, height = (np.take_along_axis(part[rows], np.stack(nearest, 1), 1) for part in (at, slopes, heights))
    values = around(rows, np.zeros((len(rows), 1)), centre - NEAR, centre + NEAR)
    close = (values[:, 1 : count + 1], values[:, :1] + height, values[:, count + 1 :])
    size, precision = change_along(slopes, weights, change)[rows, None], float(np.finfo(np.float32).eps)
    some = is_no_derivative(slope, np.stack(close, -1), size, precision).any(1)
    if some.any():
        before, after = np.split(around(rows[some], centre[some] - FAR, centre[some] + FAR), 2, 1)
        whole = np.stack([before, *(part[some] for part in close), after], -1)
        found = is_no_derivative(slope[some], whole, size[some], precision).any(1)
        wrong[torch.from_numpy(rows[some][found]).to(wrong.device)] = True
    return wrong


def _exact(game: Game) -> bool:
    """Whether inputs and outputs are precise enough to tell slopes and jumps from rounding."""
    return game.precision < FINE and all(
        torch.finfo(part.dtype).eps < FINE for part in game.inputs if part.is_floating_point()
    )


def _numbers(values: Tensor) -> NDArray[np.float64]:
    numbers: NDArray[np.float64] = values.detach().double().cpu().numpy()
    return numbers
