"""Shapley values of the mean game over background rows, for the front ends."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from captum_meta.attr._arithmetic import plain_arithmetic
from captum_meta.attr._incomplete import UNEXPLAINED, warn_of_rows
from captum_meta.attr._pair_support import MAX_POINTS, PairSupport, SupportedPairs
from captum_meta.estimators import InputProcess, kernel_shapley_values, plan_coalitions, shapley_values, value_distances
from captum_meta.games import MeanGame

_FIRST_PAIRS = 8
"""Pairs per player in the first round."""
_MAX_ROWS = 1024
_MAX_NUMBERS = 2**23
_LINKED = 1022
"""Coalitions at which the link is applied: all of them for up to ten players."""
_LEAST_STRENGTH = 1e-6
Link = Callable[[Tensor], Tensor]
_NINE_IN_TEN = 5.0
"""The 90 % bound of a row's error, over the difference between the answers of two halves of its pairs."""
_FEW_PAIRS = 12.0
"""Pairs per player at which the halves' difference shows half of their error, because both halves miss the same."""


def explain_mean_game(
    game: MeanGame,
    budgets: Tensor,
    tolerance: float | None,
    with_bounds: bool,
    seed: int,
    link: Link | None = None,
    support: PairSupport | None = None,
) -> tuple[Tensor, Tensor]:
    """Attributions ``(N, O, M)`` from pairs of coalitions and background rows, and bounds on their errors ``(N, O)``.

    Args:
        game: the explained model, the rows, and the background rows.
        budgets: the most pairs of each row, ``(N,)``.
        tolerance: pairs are evaluated in rounds that double their number; an output has the answer of the first within it.
        with_bounds: whether bounds are asked for; NaN otherwise.
        link: a function of the mean over the background rows, whose values are explained; not with a tolerance.
        support: what is known of the model from other rows.
    """
    measurement = SupportedPairs(game, budgets, seed, support)
    rows = torch.arange(game.n_rows, device=game.device)
    if tolerance is None:
        measurement.evaluate()
        values, bounds = _explained(measurement, rows, with_bounds, link)
    else:
        values, bounds = _within(measurement, tolerance)
    unknown = ~measurement.total.isfinite()
    warn_of_rows(unknown.any(1), UNEXPLAINED)
    values, bounds = values.masked_fill(unknown.unsqueeze(-1), torch.nan), bounds.masked_fill(unknown, torch.nan)
    return values.to(measurement.everyone), bounds.to(measurement.everyone)


def _within(measurement: SupportedPairs, tolerance: float) -> tuple[Tensor, Tensor]:
    game, rows = measurement.game, torch.arange(len(measurement.planned), device=measurement.planned.device)
    limits, counts = measurement.planned.sum(1), _FIRST_PAIRS * game.mask.sum(1)
    values = measurement.total.new_zeros(*measurement.total.shape, game.players.count)
    bounds = torch.full_like(measurement.total, torch.inf)
    while len(rows):
        measurement.evaluate(counts, torch.zeros_like(limits, dtype=torch.bool).index_fill(0, rows, True))
        before = bounds[rows] <= tolerance
        found, its_bounds = _explained(measurement, rows, True)
        values[rows] = torch.where(before.unsqueeze(2), values[rows], found)
        bounds[rows] = torch.where(before, bounds[rows], its_bounds)
        rows = rows[~((bounds <= tolerance).all(1) | (counts >= limits))[rows]]
        counts = 2 * counts
    return values, bounds


def _explained(
    measurement: SupportedPairs, rows: Tensor, with_bounds: bool, link: Link | None = None
) -> tuple[Tensor, Tensor]:
    """Attributions ``(R, O, M)`` of the rows ``(R,)``, and bounds on their errors ``(R, O)``; NaN if not asked for.

    A bound is the relative squared error that nine in ten rows stay below, 0 where all pairs are known, and infinite where
    no other pair says that anything acts.
    """
    complete = measurement.complete[rows]
    total = measurement.total[rows]
    values = total.new_zeros(*total.shape, measurement.members.shape[2])
    bounds = torch.full_like(total, torch.nan)
    with plain_arithmetic(total.device):
        for every, some in ((True, rows[complete]), (False, rows[~complete])):
            if len(some):
                found = _exact(measurement, some, link) if every else _expected(measurement, some, with_bounds, link)
                values[complete == every], bounds[complete == every] = found
    return values, bounds


def _exact(measurement: SupportedPairs, rows: Tensor, link: Link | None) -> tuple[Tensor, Tensor]:
    """Exact Shapley values from all pairs; rows with fewer players keep their order."""
    total = measurement.total[rows]
    values = total.new_zeros(*total.shape, measurement.members.shape[2])
    noise = measurement.rounding()
    for index, row in enumerate(rows.tolist()):
        worths = table_of(measurement, row)
        found = shapley_values(link(worths) if link else worths)
        values[index, :, measurement.game.mask[row]] = found.masked_fill(inert(worths, noise[row]), 0.0)
    return values, torch.zeros_like(total)


def table_of(measurement: SupportedPairs, row: int) -> Tensor:
    """The mean game's worths of all coalitions of the row's own players, ``(O, 2**M)``, where all pairs are known."""
    players, planned = measurement.game.mask[row], measurement.planned[row]
    members = measurement.members[row, planned][:, players]
    count = int(players.sum())
    worths = measurement.total.new_zeros(measurement.total.shape[1], 2**count)
    codes = (members * 2 ** torch.arange(count, device=members.device)).sum(-1)
    shares = measurement.game.weights[measurement.drawn[row, planned]]
    worths.index_add_(1, codes, measurement.values[row, planned].double().T * shares)
    worths[:, 0], worths[:, -1] = measurement.start[row], measurement.everyone[row]
    return worths


def inert(worths: Tensor, noise: Tensor) -> Tensor:
    """Players who change no worth by more than rounding, ``noise (O,)``, of tables ``(O, 2**M)``: ``(O, M)`` bool."""
    n_players = worths.shape[1].bit_length() - 1
    gains = [worths.unflatten(1, (-1, 2, 2**i)).diff(dim=2).abs().flatten(1).amax(1) for i in range(n_players)]
    return torch.stack(gains, dim=1) <= noise.unsqueeze(1)


def _expected(measurement: SupportedPairs, rows: Tensor, with_bounds: bool, link: Link | None) -> tuple[Tensor, Tensor]:
    """Expected Shapley values under the Gaussian process over inputs, some rows at a time."""

    def of_output(some: Tensor, output: int, apart: Tensor, seats: Tensor, idle: Tensor) -> tuple[Tensor, Tensor]:
        return _of_output(measurement, some, output, apart, seats, idle, with_bounds, link)

    values, bounds = by_output(measurement, rows, of_output)
    return values, bounds


def by_output(measurement: SupportedPairs, rows: Tensor, of_output: Callable[..., tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
    """Apply a function to some of the ``rows (R,)`` and one output at a time; its answers as ``(R, O, ...)``.

    Args:
        measurement: of a game with at most 1,024 background rows.
        rows: which are to be explained.
        of_output: from rows, an output, distances between values, seats at the points seen, and idle players.
    """
    game = measurement.game
    if game.count > _MAX_ROWS:
        raise ValueError(
            f"There are {game.count} background rows: pass at most {_MAX_ROWS}, such as a sample of them or the centres of "
            "clusters, or n_samples that covers all pairs."
        )
    step = max(1, _MAX_NUMBERS // _numbers_of_row(measurement))
    idle, player_values = measurement.idle(), game.player_values()
    parts = []
    for some in rows.split(step):
        apart = value_distances(measurement.beside(player_values[some]), game.count)
        seats = _seats(measurement, some)
        outputs = [
            of_output(some, output, apart, seats, idle[some, :, output]) for output in range(measurement.everyone.shape[1])
        ]
        parts.append(tuple(torch.stack(found, dim=1) for found in zip(*outputs, strict=True)))
    return tuple(torch.cat(found) for found in zip(*parts, strict=True))


def _numbers_of_row(measurement: SupportedPairs) -> int:
    """The largest array of a row: its tables, its covariance, or the points that the process is fitted to."""
    n_values, n_players = measurement.game.count + 1 + measurement.n_supporting, measurement.game.players.count
    n_points = min(measurement.members.shape[1] + n_values + len(measurement.support_seats), MAX_POINTS)
    return max(n_values**2 * n_players, n_points**2, n_players * min(n_points, 256) ** 2)


def _seats(measurement: SupportedPairs, rows: Tensor) -> Tensor:
    """The index of each player's value at the input, the background rows, the pairs and the support, ``(R, *, M)``."""
    members, count = measurement.members[rows], measurement.game.count
    ends = torch.arange(count + 1, device=rows.device).reshape(1, -1, 1).expand(len(rows), -1, members.shape[2])
    pairs = torch.where(members, 0, measurement.drawn[rows].unsqueeze(-1) + 1)
    return torch.cat([ends, pairs, measurement.support_seats.expand(len(rows), -1, -1)], dim=1)


def _of_output(
    measurement: SupportedPairs,
    rows: Tensor,
    output: int,
    distances: Tensor,
    seats: Tensor,
    idle: Tensor,
    with_bounds: bool,
    link: Link | None,
) -> tuple[Tensor, Tensor]:
    """Attributions ``(R, M)`` and bounds ``(R,)`` of one output; those of idle players are 0."""
    worths, known = _seen(measurement, rows, output)
    total, acting = measurement.total[rows, output], ~idle & measurement.game.mask[rows]
    used, shares = slice(0, MAX_POINTS), measurement.game.weights
    process = process_of(measurement, rows, output, distances, seats, idle)
    values = completed(process.shapley_values(shares), total, acting)
    if worths.shape[1] > MAX_POINTS:
        values = values + _missed(process, measurement.members[rows], seats, worths, known, acting)
    bounds = torch.full_like(total, torch.nan)
    if link is not None:
        values = _linked(process, measurement, rows, output, acting, link)
    if with_bounds:
        answers = [
            completed(process.given(known[:, used] & half).shapley_values(shares), total, acting)
            for half in _halves(measurement, min(MAX_POINTS, seats.shape[1]))
        ]
        apart = (answers[0] - answers[1]).square().sum(1) / 4
        each = measurement.asked[rows].sum(1) / measurement.game.mask[rows].sum(1)
        few = 1 + (_FEW_PAIRS / each).square()
        size = values.square().sum(1).clamp(min=torch.finfo(values.dtype).tiny)
        bounds = _NINE_IN_TEN * few * apart / size
        nothing = values.abs().amax(1) <= measurement.rounding()[rows, output]
        bounds = bounds.masked_fill(nothing & measurement.changed[rows].any(1), torch.inf)
    return values, bounds


def _seen(measurement: SupportedPairs, rows: Tensor, output: int) -> tuple[Tensor, Tensor]:
    """f at the input, background rows, pairs and support points, ``(R, 1 + K + S + P)`` float64, and which are known."""
    everyone, nobody = measurement.everyone[rows, output].unsqueeze(1), measurement.nobody[rows, :, output]
    worths = torch.cat([everyone, nobody, measurement.values[rows, :, output]], dim=1).double()
    asked = functional.pad(measurement.asked[rows], (worths.shape[1] - measurement.asked.shape[1], 0), value=True)
    worths = torch.cat([worths, measurement.support_worths(rows, output)], dim=1)
    return worths, functional.pad(asked, (0, worths.shape[1] - asked.shape[1]), value=True) & worths.isfinite()


def process_of(
    measurement: SupportedPairs, rows: Tensor, output: int, distances: Tensor, seats: Tensor, idle: Tensor
) -> InputProcess:
    """The process over inputs, conditioned on the first 3,072 evaluated points of the ``rows (R,)``."""
    worths, known = _seen(measurement, rows, output)
    still = idle & measurement.changed[rows]  # values of others are all alike but for those of support rows
    apart, used = torch.where(still[..., None, None], 0.0, distances), slice(0, MAX_POINTS)
    return InputProcess(apart, seats[:, used], worths[:, used], known[:, used])


def _linked(
    process: InputProcess, measurement: SupportedPairs, rows: Tensor, output: int, acting: Tensor, link: Link
) -> Tensor:
    """Shapley values ``(R, M)`` of the link of the mean game, from coalitions that the process predicts."""
    mask = measurement.game.mask[rows]
    members, known = plan_coalitions(mask, _LINKED, 0, torch.zeros_like(rows))
    seen = torch.cat([measurement.everyone[rows, output].unsqueeze(1), measurement.nobody[rows, :, output]], dim=1).double()
    expected = process.mean_game(members, measurement.game.weights)
    lowest, highest = seen.amin(1, keepdim=True), seen.amax(1, keepdim=True)
    start = link(measurement.start[rows, output])
    worths = link(expected.clamp(lowest, highest)) - start.unsqueeze(1)
    total, nothing = link(seen[:, 0]) - start, torch.zeros_like(acting, dtype=torch.float64)
    values = kernel_shapley_values(members, worths, known, mask, total, nothing, nothing + _LEAST_STRENGTH)
    return completed(values, total, acting)


def _halves(measurement: SupportedPairs, length: int) -> tuple[Tensor, Tensor]:
    """Half of the points, ``(N,)`` bool: every other pair of complements, every other support row, and both ends."""
    of_support = measurement.support_half
    indices = torch.arange(length - len(of_support), device=of_support.device) - measurement.game.count - 1
    first, ends = indices // 2 % 2 == 0, indices < 0
    return torch.cat([first | ends, of_support]), torch.cat([~first | ends, ~of_support])


def completed(values: Tensor, total: Tensor, acting: Tensor) -> Tensor:
    """Attributions whose sum is ``total``: the players that act share the gap evenly."""
    shares = acting / acting.sum(1, keepdim=True).clamp(min=1)
    return torch.where(acting, values, 0.0) + shares * (total - (values * acting).sum(1)).unsqueeze(1)


def _missed(process: InputProcess, members: Tensor, seats: Tensor, worths: Tensor, known: Tensor, acting: Tensor) -> Tensor:
    """Shapley values ``(R, M)`` of the residuals of pairs that the process was not conditioned on."""
    rest = slice(MAX_POINTS + (seats.shape[1] - members.shape[1] + MAX_POINTS) % 2, None)
    seats, worths, known = seats[:, rest], worths[:, rest], known[:, rest]
    members = members[:, -seats.shape[1] :]
    expected = torch.cat([process.at(some) for some in seats.split(MAX_POINTS, dim=1)], dim=1)
    residual = torch.where(known, worths - expected, 0.0)
    even = residual.shape[1] // 2 * 2
    odd = (residual[:, 0:even:2] - residual[:, 1:even:2]) / 2
    both = (known[:, 0:even:2] & known[:, 1:even:2]).repeat_interleave(2, dim=1)
    nothing = torch.zeros_like(acting, dtype=torch.float64)
    differences = torch.stack([odd, -odd], dim=-1).flatten(1)
    total = nothing.sum(1)
    return kernel_shapley_values(members[:, :even], differences, both, acting, total, nothing, nothing + _LEAST_STRENGTH)
