"""Whether gradients along a path are those of f, and complete; checked by evaluations of f where this is in doubt."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

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
    explained_everywhere,
    inconsistent_gradients,
    is_no_derivative,
    missed_part,
    quadrature_weights,
    smoothly_inconsistent,
    suspected_steps,
)
from captum_meta.estimators.path_sample import Floats, Indices
from captum_meta.games import Game

_CUTS, _PARTS = 4, 8
"""How often an interval in which f may jump is cut, and into how many parts."""
_ROUNDING, _CHANGED = 32, 16
"""Units in the last place by which f may be rounded, and by which it changes where this hardly matters."""

Which = NDArray[np.bool_]
Check = Generator[tuple[Indices, Floats], NDArray[Any], Which]
"""A check of N rows: asks for f of rows ``(R,)``, ascending, at points ``(R, G)`` of their paths, is sent it, ``(R, G)``,
and in the end returns which rows it finds, ``(N,)``."""


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
    given = _numbers(points, sums, curve, total)
    found = inconsistent_gradients(*given)
    if not _exact(game):
        return _beyond_rounding(game, torch.from_numpy(found).to(total.device), curve, output)
    found |= smoothly_inconsistent(*given)
    return torch.from_numpy(found | _checked(game, output, _jumps(found, *given))[0]).to(total.device)


@np.errstate(invalid="ignore", over="ignore")
def wrong_rows(
    game: Game,
    points: Tensor,
    sums: Tensor,
    curve: Tensor,
    total: Tensor,
    output: int = 0,
    doubtful: float = DOUBTFUL,
) -> Tensor:
    """:func:`inconsistent_rows`, and those whose gradients are not the derivatives of f, ``(N,)``.

    None of which gradients explain f between all points (:func:`~captum_meta.estimators.explained_everywhere`). The latter
    (:func:`~captum_meta.estimators.is_no_derivative`) are looked for where gradients miss some of the change of
    f: seven evaluations, of f at the baseline and on both sides of three gradients. Further away f is asked for only where
    these say that a gradient is wrong.

    Args:
        game, points, sums, curve, total, output: as of :func:`inconsistent_rows`.
        doubtful: part of what f changes by that gradients may miss before they are checked.
    """
    if not _exact(game):
        return inconsistent_rows(game, points, sums, curve, total, output)
    given = _numbers(points, sums, curve, total)
    right = explained_everywhere(*given)
    if right.all():
        return torch.zeros_like(total, dtype=torch.bool)
    found = (inconsistent_gradients(*given) | smoothly_inconsistent(*given)) & ~right
    for further in _checked(game, output, _jumps(found | right, *given), _slopes(doubtful, *given)):
        found |= further
    return torch.from_numpy(found).to(total.device)


def stepping_rows(game: Game, between: Floats, least: Floats, output: int = 0) -> Tensor:
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
    found = _checked(game, output, _steps(between, least))[0] if _exact(game) else np.zeros(len(least), dtype=np.bool_)
    return torch.from_numpy(found).to(game.device)


def _checked(game: Game, output: int, *checks: Check) -> list[Which]:
    """What the checks find. f is evaluated for all of them at once."""
    found: dict[Check, Which] = {}

    def asked(check: Check, values: NDArray[Any] | None) -> tuple[Indices, Floats] | None:
        try:
            return next(check) if values is None else check.send(values)
        except StopIteration as stop:
            found[check] = stop.value
            return None

    left = {check: question for check in checks if (question := asked(check, None)) is not None}
    while left:
        values = _values(game, list(left.values()), output)
        answered = zip(list(left), values, strict=True)
        left = {check: question for check, some in answered if (question := asked(check, some)) is not None}
    return [found[check] for check in checks]


def _values(game: Game, asked: list[tuple[Indices, Floats]], output: int) -> list[NDArray[Any]]:
    """f of rows ``(R,)``, ascending, at points ``(R, G)`` of their paths, ``(R, G)``, for each that is asked for."""
    if game.evaluation.together is None:
        game.at(torch.ones(1))
    if game.together:
        return [_of_whole_batches(game, *one)[..., output].cpu().numpy() for one in asked]
    rows, points = (
        np.concatenate(parts) for parts in zip(*((np.repeat(r, p.shape[1]), p.ravel()) for r, p in asked), strict=True)
    )
    values = game.at_each(*(torch.from_numpy(part).to(game.device) for part in (rows, points)))[:, output].cpu().numpy()
    ends = np.cumsum([points.size for _, points in asked])
    return [part.reshape(points.shape) for part, (_, points) in zip(np.split(values, ends[:-1]), asked, strict=True)]


def _of_whole_batches(game: Game, rows: Indices, points: Floats) -> Tensor:
    """``(R, G, K)``, where all rows must be evaluated at once."""
    everyone = np.full((game.n_examples, points.shape[1]), 0.5)
    everyone[rows] = points
    return game.at(torch.from_numpy(everyone).to(game.device))[torch.from_numpy(rows).to(game.device)]


def _jumps(known: Which, points: Floats, sums: Floats, curve: Floats, total: Floats) -> Check:
    """:func:`_steps` where gradients miss most of f, in rows of which nothing is ``known (N,)``."""
    zero = np.zeros((len(total), 1))
    at = np.concatenate([zero, points, zero + 1], axis=1)
    values = np.concatenate([zero, curve, total[:, None]], axis=1)
    beside = np.concatenate([sums[:, :1], sums, sums[:, -1:]], axis=1)
    rows = np.repeat(np.arange(len(total)), at.shape[1] - 1)
    sides, around = (np.stack([part[:, :-1].ravel(), part[:, 1:].ravel()], axis=1) for part in (at, beside))
    between, least = suspected_steps(rows, sides, np.diff(values).ravel(), around)
    return _steps(between, np.where(known, 0.0, least))


def _steps(between: Floats, least: Floats) -> Check:
    """The check of :func:`stepping_rows`."""
    found = np.zeros(len(least), dtype=np.bool_)
    rows = least.nonzero()[0]
    if len(rows) == 0:
        return found
    small, points = least[rows], _cut(between[rows])
    values = yield rows, points
    small = np.maximum(small, _ROUNDING * np.finfo(values.dtype).eps * np.abs(values).max(1))
    change, place = _largest_change(values)
    for _ in range(_CUTS - 1):
        on = change > small
        if not on.any():
            return found
        rows, small, points, values, before, place = (part[on] for part in (rows, small, points, values, change, place))
        ends = np.stack([place, place + 1], axis=1)
        points, sides = _cut(np.take_along_axis(points, ends, 1)), np.take_along_axis(values, ends, 1)
        inner = yield rows, points[:, 1:-1]
        values = np.concatenate([sides[:, :1], inner, sides[:, 1:]], axis=1)
        change, place = _largest_change(values)
    found[rows] = (change > small) & (change > before / 2)
    return found


def _largest_change(values: NDArray[Any]) -> tuple[NDArray[Any], Indices]:
    """The largest change of each row of values ``(R, G)`` from one to the next, ``(R,)``, and where it is."""
    changes = np.abs(np.diff(values))
    return changes.max(1), changes.argmax(1)


def _cut(sides: Floats) -> Floats:
    """Ends of the eighths of intervals ``(R, 2)``, ``(R, 9)``."""
    parts = np.arange(_PARTS + 1) / _PARTS
    ends: Floats = sides[:, :1] * (1 - parts) + sides[:, 1:] * parts
    return ends


def _slopes(doubtful: float, points: Floats, sums: Floats, curve: Floats, total: Floats) -> Check:
    """Whether gradients are the derivatives of f, where a quadrature of them misses a ``doubtful`` part of its change."""
    wrong, weights = np.zeros(len(total), dtype=np.bool_), quadrature_weights(points)
    rows = np.flatnonzero(missed_part(sums, weights, total) > doubtful)
    if len(rows) == 0:
        return wrong
    count = min(PLACES, points.shape[1])
    nearest = [np.abs(points[rows] - place / (count + 1)).argmin(1) for place in range(1, count + 1)]
    centre, slope, height = (np.take_along_axis(part[rows], np.stack(nearest, 1), 1) for part in (points, sums, curve))
    given = yield rows, np.concatenate([np.zeros((len(rows), 1)), centre - NEAR, centre + NEAR], axis=1)
    values = given.astype(np.float64)
    close = (values[:, 1 : count + 1], values[:, :1] + height, values[:, count + 1 :])
    size, precision = change_along(sums, weights, total)[rows, None], float(np.finfo(np.float32).eps)
    some = is_no_derivative(slope, np.stack(close, -1), size, precision).any(1)
    if some.any():
        given = yield rows[some], np.concatenate([centre[some] - FAR, centre[some] + FAR], axis=1)
        before, after = np.split(given.astype(np.float64), 2, 1)
        whole = np.stack([before, *(part[some] for part in close), after], -1)
        wrong[rows[some]] = is_no_derivative(slope[some], whole, size[some], precision).any(1)
    return wrong


def _beyond_rounding(game: Game, some: Tensor, curve: Tensor, output: int) -> Tensor:
    """Which ``some (N,)`` of the rows have an f that changes by many units of its precision, ``(N,)``."""
    beyond, rows = torch.zeros_like(some), some.nonzero().flatten()
    if len(rows):
        (start,) = _values(game, [(rows.cpu().numpy(), np.zeros((len(rows), 1)))], output)
        sizes = torch.from_numpy(start[:, 0]).to(curve).abs()
        beyond[rows] = curve[rows].abs().amax(1) > _CHANGED * game.precision * sizes
    return beyond


def _exact(game: Game) -> bool:
    """Whether inputs and outputs are precise enough to tell slopes and jumps from rounding."""
    return game.precision < FINE and all(
        torch.finfo(part.dtype).eps < FINE for part in game.inputs if part.is_floating_point()
    )


def _numbers(points: Tensor, sums: Tensor, curve: Tensor, total: Tensor) -> tuple[Floats, Floats, Floats, Floats]:
    """``(N, G)`` thrice, and ``(N,)``."""
    count = points.shape[1]
    joined: Floats = torch.cat([points, sums, curve, total.unsqueeze(1)], dim=1).detach().double().cpu().numpy()
    return joined[:, :count], joined[:, count : 2 * count], joined[:, 2 * count : -1], joined[:, -1]
