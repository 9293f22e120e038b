"""What calibration rows tell: difficulty scores, and the scale between a score and a bound."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import torch
from torch import Tensor

from captum_meta.attr._compared import Compared, Measure
from captum_meta.attr._difficulty import LEAST_ROWS, Difficulty, Likeness
from captum_meta.estimators.conformal import (
    accepted_rows_needed,
    accepted_scale,
    conformal_quantile,
    exceedance_tail,
    ordered_scales,
    rows_needed,
)

DELTA = 0.1
"""The probability, over calibration rows, that accepted rows miss more often than alpha."""
FALSE_ALARMS = 0.05
_PARTS = 3
"""One of so many calibration rows teaches the difficulty."""
_SCALES = 2.0 ** (torch.arange(-24, 33) / 8)
"""Scales tested under a tolerance, in units of the one that the rows that teach would need."""


@dataclass(frozen=True)
class Calibration:
    """Calibrated scales of one method on one model.

    Attributes:
        alpha: share of misses that is accepted.
        levels: the difficulty at each level.
        rows: the calibration rows.
        scores: ``(N, L)``, how difficult they are; infinite at levels that a row does not have.
        teach: ``(N,)`` bool, rows that have taught the difficulty; the others calibrate.
        likeness: to one third of the calibration rows.
        usual: ``(n,)``, how unlike them the others are, in order.
    """

    alpha: float
    levels: tuple[Difficulty, ...]
    rows: Compared
    scores: Tensor
    teach: Tensor
    likeness: Likeness
    usual: Tensor

    @classmethod
    def of(cls, rows: Compared, alpha: float) -> Calibration:
        """From calibration rows."""
        errors = rows.errors.distance
        third = torch.arange(len(errors), device=errors.device) % _PARTS == _PARTS - 1
        enough = int(third.sum()) >= LEAST_ROWS and int((~third).sum()) >= rows_needed(alpha)
        teach = third if enough else torch.zeros_like(third)
        scores, levels = torch.empty_like(errors), []
        for level in range(errors.shape[1]):
            signals, features = rows.signals[:, level], rows.features[:, level]
            difficulty, own = Difficulty.fitted(signals[teach], features[teach], errors[teach, level])
            scores[teach, level] = own
            scores[~teach, level] = difficulty.scores(signals[~teach], features[~teach])
            levels.append(difficulty)
        scores = torch.where(rows.lengths.length.isfinite(), scores, torch.inf)
        likeness = Likeness.to(rows.content[third] if bool(third.any()) else rows.content)
        usual = likeness.distances(rows.content[~third]).sort().values
        return cls(alpha, tuple(levels), rows, scores, teach, likeness, usual)

    def scale(self, measure: Measure) -> Tensor:
        """What scores are multiplied by to bound an error at the first level, ``()``."""
        return conformal_quantile(self._ratios(measure)[~self.teach, 0], self.alpha)

    def scale_within(self, measure: Measure, tolerance: float) -> Tensor:
        """The same under a tolerance, at any level, ``()``; infinite where no row can be accepted.

        Raises:
            ValueError: if there are too few calibration rows to tell.
        """
        needed = accepted_rows_needed(self.alpha, DELTA)
        calibrate = ~self.teach
        if not bool(self.teach.any()) or int(calibrate.sum()) < needed:
            enough = max(_PARTS * LEAST_ROWS, ceil(needed * _PARTS / (_PARTS - 1)))
            raise ValueError(
                f"{len(self.teach)} calibration rows are too few for a tolerance at alpha={self.alpha:g}: what is accepted "
                f"is judged apart, so pass at least {enough} rows to calibrate()."
            )
        ratios, sizes = self._ratios(measure), self.rows.lengths.widths(measure, self.scores)
        unit = conformal_quantile(ratios[self.teach].flatten(), self.alpha)
        scales = torch.where((unit > 0) & unit.isfinite(), unit, 1.0) * _SCALES.to(unit)
        known = (ratios[self.teach], sizes[self.teach])
        scales = ordered_scales(*known, scales, tolerance, self.alpha, int(calibrate.sum()))
        return accepted_scale(ratios[calibrate], sizes[calibrate], scales, tolerance, self.alpha, DELTA)

    def _ratios(self, measure: Measure) -> Tensor:
        return self.rows.errors.ratios(measure, self.rows.lengths, self.scores)

    def unlike(self, content: Tensor) -> list[int]:
        """Rows ``(R, C)`` that are further from the calibration rows than these are, where so many are not chance."""
        rows = len(self.usual)
        if not rows:
            return []
        place = min(rows, ceil((rows + 1) * (1 - FALSE_ALARMS) - 1e-9))
        beyond = self.likeness.distances(content) > self.usual[place - 1]
        chance = exceedance_tail(int(beyond.sum()), len(content), rows, place)
        return beyond.nonzero().flatten().tolist() if chance <= FALSE_ALARMS + 1e-9 else []
