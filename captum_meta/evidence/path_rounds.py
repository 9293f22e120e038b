"""Path integrals from gradients that are spent in rounds, on the rows that need them and where their paths bend."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from functools import lru_cache

import numpy as np
import torch
from jaxtyping import Float
from numpy.polynomial.legendre import legvander
from numpy.typing import NDArray
from torch import Tensor

from captum_meta._units import power_of_two
from captum_meta.estimators import (
    PathIntervals,
    PathSample,
    further_points,
    gauss_legendre,
    interval_weights,
    suspected_steps,
)
from captum_meta.estimators.path_sample import ROUNDING, Floats, Indices
from captum_meta.evidence.consistency import stepping_rows, wrong_rows
from captum_meta.evidence.path import own_gradients, path_gradients
from captum_meta.evidence.path_onset import COUNT, begins_early, of_onset, with_onset
from captum_meta.games import Game
from captum_meta.types import Evidence

FIRST = 8
"""Gradients of the first round, at the nodes of Gauss and Legendre: enough where a path is smooth."""
MOST = 50
"""Gradients of a row in all, as many as Captum's."""
_SECOND = 25
"""Gradients after the second round, which show where the path bends."""
_AIMS = (0.0, 1.0, 0.95)
"""Target errors of the rounds, as parts of the wanted error."""
_CLOSE = 1.3
"""Factor over the target that a row's error may have in the end."""
_ENOUGH = 1e-6
"""Relative squared error that counts as none."""
_AS_CAPTUM = 0.6
"""Part of Captum's expected error at which a row stops."""
_BENT = 1e-5
"""Of the gradients' squares, the part that is left for the last coefficients of the polynomial through them."""
_CANCELLED = 1e-3
"""Least part of the intervals' squared errors that their sum keeps: further cancellation is chance."""
_NEXT_TO_NOTHING = 2.0**-40
"""Gradients below this part of f's change would overflow later numbers."""
_MAX_NUMBERS = 2**26
"""Gradients of elements that are held at once."""
_SURE, _LESS_SURE = 3.0, 6.0
"""Factors from the expected error to the 90 % bound: after several rounds, and after the first alone."""


@dataclass(frozen=True)
class Integrals:
    """Integrals of N rows, and what is known of their errors.

    Attributes:
        attributions: ``(N, M)``.
        error: ``(N,)``, relative squared error of the attributions that nine in ten rows stay below.
        counts: ``(N,)``, gradients that were taken.
        inconsistent: ``(N,)``, whether they do not explain how f changes
            (:func:`~captum_meta.estimators.inconsistent_gradients`).
        hidden: ``(N,)``, whether f is rounded by so much that it does not tell how the path bends, though it does.
    """

    attributions: Float[Tensor, "N M"]
    error: Float[Tensor, " N"]
    counts: Tensor
    inconsistent: Tensor
    hidden: Tensor


def integrate_in_rounds(
    game: Game,
    difference: Float[Tensor, "N M"],
    ends: Float[Tensor, "N 2"],
    limit: int = MOST,
    tolerance: float | None = None,
) -> Integrals:
    """Gradients along the path of every row until its error is small enough.

    Args:
        game: the explained model and the rows, which it answers for one by one.
        difference: ``(N, M)``, input minus baseline.
        ends: ``(N, 2)`` float64, f at the baseline and at the input.
        limit: gradients of a row at most.
        tolerance: relative squared error at which a row stops. None: where Captum's 50 gradients would be.

    Raises:
        AssertionError, RuntimeError: as :func:`~captum_meta.evidence.path_gradients`.
    """
    everyone = torch.arange(game.n_examples, device=game.device)
    parts = everyone.split(max(1, _MAX_NUMBERS // (MOST * max(1, difference.shape[1]))))
    if len(parts) == 1:
        return _integrate(game, difference, ends, limit, tolerance)
    found = [_integrate(game.take(rows), difference[rows], ends[rows], limit, tolerance) for rows in parts]
    return Integrals(*(torch.cat([getattr(part, field.name) for part in found]) for field in fields(Integrals)))


def _integrate(game: Game, difference: Tensor, ends: Tensor, limit: int, tolerance: float | None) -> Integrals:
    finite = ends.isfinite().all(1)
    path, sample = _first_round(game, difference, torch.where(finite.unsqueeze(1), ends, 0.0), min(FIRST, limit))
    inconsistent = _inconsistent(path, sample)
    intervals = PathIntervals(sample)
    weights, error = _polynomial(intervals)
    size = sample.squares(weights)
    attributions, rows = torch.zeros_like(difference), np.arange(len(size))
    hidden = _hidden(intervals, size)
    broken = (~finite.to(inconsistent.device) | inconsistent).cpu().numpy() | hidden
    estimates, counts = np.zeros(len(rows)), np.zeros(len(rows), dtype=np.int64)
    between, least = np.zeros((len(rows), 2)), np.zeros(len(rows))
    early = begins_early(intervals) & ~broken & (limit >= FIRST + COUNT)
    for turn, most in enumerate((min(_SECOND, limit), limit, limit, None)):
        sure = _LESS_SURE if turn == 0 else _SURE
        target = allowed = (_ENOUGH if tolerance is None else tolerance / sure) * size[rows]
        if tolerance is None and turn > 0:
            target = np.maximum(target, _AS_CAPTUM * intervals.captum)
            allowed = _CLOSE * target if turn > 1 else allowed
        stops = (error <= allowed) | (sample.counts >= limit) | broken[rows] | (most is None)
        done = rows[stops]
        if len(done):
            chosen = torch.from_numpy(done).to(difference.device)
            attributions[chosen] = sample.added(weights)[torch.from_numpy(stops).to(difference.device)]
        estimates[done] = _relative(sure * error[stops], size[done])
        counts[done] = sample.counts[stops]
        between[done], least[done] = (part[stops] for part in _steps(intervals))
        if most is None or stops.all():
            break
        at, points = further_points(intervals, _AIMS[min(turn, 2)] * target, most)
        if turn == 0:
            at, points = with_onset(at, points, np.flatnonzero(early & ~stops))
        sample, rows = path.extended(sample, at, points, rows, ~stops)
        intervals = PathIntervals(sample)
        weights, error = intervals.weights, intervals.error
        if early[rows].any():
            of_early, missed, known = of_onset(intervals, early[rows])
            weights, error = np.where(known[sample.rows], of_early, weights), np.where(known, missed, error)
    least = np.where(broken, 0.0, least) * path.unit.double().cpu().numpy()
    inconsistent = inconsistent | stepping_rows(game, between, least)
    found = attributions * path.unit.unsqueeze(1)
    estimate, taken, unseen = map(torch.from_numpy, (estimates, counts, hidden))
    return Integrals(found, estimate, taken, inconsistent, unseen)


def error_of(evidence: Evidence) -> Float[Tensor, " N"]:
    """The same estimate for gradients at other points of the path, ``(N,)``.

    NaN of a single one, and where f is not finite at an end.
    """
    n_rows, count = evidence.curve.shape
    if count < 2:
        return torch.full_like(evidence.total, torch.nan)
    known = evidence.total.isfinite()
    evidence = evidence.times(1 / power_of_two(evidence.effects.flatten(1)))
    evidence = replace(
        evidence, total=torch.where(known, evidence.total, 0.0), curve=evidence.curve.nan_to_num(0.0, 0.0, 0.0)
    )
    ends = torch.stack([torch.zeros_like(evidence.total), evidence.total], dim=1).double().cpu().numpy()
    rows, points = np.repeat(np.arange(n_rows), count), evidence.points.double().flatten().cpu().numpy()
    sample = PathSample.of(rows, points, evidence.curve.flatten(), evidence.effects.mT.flatten(0, 1), ends)
    intervals = PathIntervals(sample)
    size = sample.squares(intervals.weights)
    return torch.from_numpy(_relative(_SURE * intervals.error, size)).to(evidence.total).masked_fill(~known, torch.nan)


def _relative(error: Floats, size: Floats) -> Floats:
    return error / np.maximum(size, np.finfo(np.float64).tiny)


def _first_round(game: Game, difference: Tensor, ends: Tensor, count: int) -> tuple[_Paths, PathSample]:
    """The same nodes for all rows."""
    nodes = _nodes(count)
    gradients, values = path_gradients(game, nodes)
    change = (ends[:, 1:] - ends[:, :1]).to(gradients)
    unit = torch.maximum(power_of_two(gradients.flatten(1)), _NEXT_TO_NOTHING * power_of_two(change) * (change[:, 0] != 0))
    path = _Paths(game, difference / unit.unsqueeze(1), unit)
    rows, points = np.repeat(np.arange(len(ends)), count), np.tile(nodes.numpy(), len(ends))
    effects = (gradients.mT * path.difference.unsqueeze(1)).flatten(0, 1)
    values, ends = values.double() / unit.double().unsqueeze(1), ends / unit.double().unsqueeze(1)
    return path, PathSample.of(rows, points, values.flatten(), effects, ends.cpu().numpy(), game.precision)


def _inconsistent(path: _Paths, sample: PathSample) -> Tensor:
    """Of the first round, in which all rows have as many points, ``(N,)``."""
    starts, game = sample.ends[:, :1], path.game
    parts = (sample.points, sample.sums, sample.values)
    unit = path.unit.double()
    points, sums, values = (torch.from_numpy(part.reshape(len(starts), -1)).to(game.device) for part in parts)
    sums, curve = sums * unit.unsqueeze(1), (values - torch.from_numpy(starts).to(game.device)) * unit.unsqueeze(1)
    total = torch.from_numpy(sample.ends[:, 1] - starts[:, 0]).to(game.device) * unit
    return wrong_rows(game, points, sums, curve, total)


def _steps(intervals: PathIntervals) -> tuple[Floats, Floats]:
    """:func:`~captum_meta.estimators.suspected_steps` of all points."""
    sides = np.stack([intervals.left, intervals.right], axis=1)
    sums = np.stack([intervals.sample.sums[intervals.first], intervals.sample.sums[intervals.second]], axis=1)
    return suspected_steps(intervals.rows, sides, intervals.changes, sums)


@dataclass(frozen=True)
class _Paths:
    """The paths of all rows of a game, in units ``(N,)`` of their own.

    Attributes:
        game: the explained model and the rows.
        difference: ``(N, M)``, input minus baseline, over the unit.
        unit: ``(N,)``.
    """

    game: Game
    difference: Tensor
    unit: Tensor

    def extended(
        self, sample: PathSample, at: Indices, points: Floats, rows: Indices, chosen: NDArray[np.bool_]
    ) -> tuple[PathSample, Indices]:
        """The sample of the ``chosen`` among its ``rows`` of the game, with further points measured, and these rows."""
        at, points = at[chosen[at]], points[chosen[at]]
        sample = sample.of_rows(chosen)
        if len(at):
            which = torch.from_numpy(rows[at]).to(self.game.device)
            gradients, values = own_gradients(self.game.between(which, torch.from_numpy(points)))
            values = values.double() / self.unit[which].double()
            new = (np.cumsum(chosen) - 1)[at]
            effects = gradients * self.difference[which]
            sample = sample.joined(PathSample.of(new, points, values, effects, sample.ends))
        return sample, rows[chosen]


def _polynomial(intervals: PathIntervals) -> tuple[Floats, Floats]:
    """Weights and squared errors of the first round: Gauss's where the polynomial through the gradients explains f."""
    sample = intervals.sample
    n_rows = len(sample.ends)
    count = len(sample.points) // n_rows
    shares = _shares(count)
    missed = intervals.changes.reshape(n_rows, count + 1) - sample.sums.reshape(n_rows, count) @ shares.T
    gap = sample.certain(missed.sum(1), np.arange(n_rows))
    apart = (sample.certain(missed.ravel(), intervals.rows).reshape(missed.shape) ** 2).sum(1)
    error = np.sqrt(apart * np.maximum(gap**2, _CANCELLED * apart)) * intervals.several
    weights = np.tile(shares.sum(0), n_rows) + intervals.common * gap[sample.rows]
    better = error <= intervals.error  # where all that is missed is rounding, both are 0
    return np.where(better[sample.rows], weights, intervals.weights), np.where(better, error, intervals.error)


def _hidden(intervals: PathIntervals, size: Floats) -> NDArray[np.bool_]:
    """Whether f's rounding may hide errors that matter, of the first round, and gradients are no low polynomial, ``(N,)``.

    Args:
        intervals: of the first round.
        size: ``(N,)``, squared size of the attributions.
    """
    sample = intervals.sample
    count = len(sample.points) // len(size)
    rounding = ROUNDING * sample.precision * np.abs(sample.ends).max(1)
    coarse: NDArray[np.bool_] = intervals.several * rounding**2 > _BENT * size
    if count < FIRST or not coarse.any():
        return np.zeros_like(coarse)
    last = sum(sample.squares(np.tile(weights, len(size))) for weights in _last_coefficients(count))
    return coarse & (last > _BENT * size)


@lru_cache(maxsize=FIRST)
def _last_coefficients(count: int) -> Floats:
    """Weights of the nodes' effects in the last two coefficients of orthonormal Legendre polynomials, ``(2, count)``."""
    nodes, weights = (part.numpy() for part in gauss_legendre(count))
    degrees = np.arange(count - 2, count)
    polynomials = legvander(2 * nodes - 1, count - 1)[:, -2:] * np.sqrt(2 * degrees + 1)
    found: Floats = polynomials.T * weights
    return found


@lru_cache(maxsize=FIRST)
@torch.inference_mode(False)
def _nodes(count: int) -> Tensor:
    return gauss_legendre(count)[0]


@lru_cache(maxsize=FIRST)
@torch.inference_mode(False)
def _shares(count: int) -> Floats:
    """Weights of the nodes' effects in the integrals over the intervals between them, ``(count + 1, count)``."""
    shares: Floats = interval_weights(_nodes(count)).numpy()
    return shares
