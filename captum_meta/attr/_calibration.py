"""Difficulty scores, and the scale from a score to a bound, both fitted to calibration rows."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from captum_meta.attr._compared import Compared, Measure
from captum_meta.attr._difficulty import LEAST_ROWS, Difficulty, Likeness
from captum_meta.estimators.conformal import (
    chance_of_no_quantile,
    conformal_quantile,
    exceedance_tail,
    likely_limit,
    passing_ratios,
    rows_needed,
)

FALSE_ALARMS = 0.05
_PARTS = 3
"""One in this many calibration rows is used to fit the difficulty."""
_RISK, _MOST_RISK = 0.05, 0.2
"""Probability that a tolerance accepts no row: the aim, and the most. Chosen on synthetic models (docs/research-log.md)."""


@dataclass(frozen=True)
class Calibration:
    """Calibrated scales of one method on one model.

    Attributes:
        alpha: share of misses that is accepted.
        levels: the difficulty score of each level.
        rows: the calibration rows.
        scores: ``(N, L)``, their difficulty; infinite at levels that a row does not have.
        fitted: ``(N,)`` bool, rows to which the difficulty was fitted; the others calibrate.
        likeness: distances to one third of the calibration rows.
        usual: ``(n,)``, these distances for the other calibration rows, sorted.
        players: how many the rows have.
    """

    alpha: float
    levels: tuple[Difficulty, ...]
    rows: Compared
    scores: Tensor
    fitted: Tensor
    likeness: Likeness
    usual: Tensor
    players: int

    @classmethod
    def of(cls, rows: Compared, alpha: float, players: int) -> Calibration:
        """From calibration rows."""
        errors = rows.errors.distance
        third = torch.arange(len(errors), device=errors.device) % _PARTS == _PARTS - 1
        enough = int(third.sum()) >= LEAST_ROWS and int((~third).sum()) >= rows_needed(alpha)
        fitted = third if enough else torch.zeros_like(third)
        scores, levels = torch.empty_like(errors), []
        for level in range(errors.shape[1]):
            signals, features = rows.signals[:, level], rows.features[:, level]
            difficulty, own = Difficulty.fitted(signals[fitted], features[fitted], errors[fitted, level])
            scores[fitted, level] = own
            scores[~fitted, level] = difficulty.scores(signals[~fitted], features[~fitted])
            levels.append(difficulty)
        scores = torch.where(rows.lengths.length.isfinite(), scores, torch.inf)
        likeness = Likeness.to(rows.content[third] if bool(third.any()) else rows.content)
        usual = likeness.distances(rows.content[~third]).sort().values
        return cls(alpha, tuple(levels), rows, scores, fitted, likeness, usual, players)

    def scale(self, measure: Measure) -> Tensor:
        """The factor ``()`` from scores to error bounds at the first level."""
        return conformal_quantile(self._ratios(measure)[~self.fitted, 0], self.alpha)

    def within(self, measure: Measure, tolerance: float) -> tuple[Tensor, Tensor]:
        """The score up to which rows pass, at any level, and the scale of their bounds, ``()`` both.

        The rows to which the difficulty is fitted set that score, and the others that pass set the scale: infinite where too
        many of them have errors beyond the tolerance, so that no row can be accepted.

        Raises:
            ValueError: if there are too few calibration rows.
        """
        calibrate = ~self.fitted
        enough = _rows_for_a_tolerance(self.alpha)
        if len(self.fitted) < enough:
            raise ValueError(
                f"{len(self.fitted)} calibration rows are too few for a tolerance at alpha={self.alpha:g}: what is accepted "
                f"is judged apart, so pass at least {enough} rows to calibrate()."
            )
        ratios, sizes = self._ratios(measure), self.rows.lengths.widths(measure, self.scores)
        known = (ratios[self.fitted], sizes[self.fitted])
        limit = likely_limit(*known, tolerance, self.alpha, int(calibrate.sum()), _RISK, _MOST_RISK)
        needed = passing_ratios(ratios[calibrate], sizes[calibrate], limit, tolerance)
        return limit, conformal_quantile(needed, self.alpha)

    def _ratios(self, measure: Measure) -> Tensor:
        return self.rows.errors.ratios(measure, self.rows.lengths, self.scores)

    def unlike(self, content: Tensor) -> list[int]:
        """Indices of rows ``(R, C)`` unlike the calibration rows, where there are significantly many of them."""
        rows = len(self.usual)
        if not rows:
            return []
        rank = min(rows, ceil((rows + 1) * (1 - FALSE_ALARMS) - 1e-9))
        beyond = self.likeness.distances(content) > self.usual[rank - 1]
        chance = exceedance_tail(int(beyond.sum()), len(content), rows, rank)
        return beyond.nonzero().flatten().tolist() if chance <= FALSE_ALARMS + 1e-9 else []


def _rows_for_a_tolerance(alpha: float) -> int:
    """Fewest calibration rows with which a tolerance can accept any row.

    >>> [_rows_for_a_tolerance(alpha) for alpha in (0.2, 0.1, 0.05)]
    [60, 60, 118]
    """
    rows = _PARTS * LEAST_ROWS
    while chance_of_no_quantile(0, rows // _PARTS, rows - rows // _PARTS, alpha) > _MOST_RISK:
        rows += 1
    return rows
