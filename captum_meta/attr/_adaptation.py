"""What adapting to a model cost, and after how many explained rows it pays off."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import inf, isfinite, nan

import torch

from captum_meta.attr._units import InUnits
from captum_meta.types import Explanations

_FOLDS = 4
_FALL = 1.6
"""Errors fall as this power of the number of coalitions: on the held-out models, from 4M to 32M."""


@dataclass(frozen=True)
class Adaptation:
    """What adapting to the support rows cost, what it gained, and when it pays.

    Attributes:
        rows: number of support rows.
        evaluations: of the explained model for these rows, a gradient counted as three, a ``teacher``'s not counted.
        zero_shot_error: relative squared error of the support rows' explanations before adapting, against their
            labels, whose own noise is part of it; NaN for fewer than four rows.
        error: the same after adapting, where each row is explained without its own quarter of the support rows.
        pays_after: after how many explained rows adapting costs less than the coalitions that would give the same error
            without it; infinite where adapting does not help, NaN where that is not known, as for path methods.
    """

    rows: int
    evaluations: int
    zero_shot_error: float
    error: float
    pays_after: float

    @classmethod
    def judged(cls, learner: InUnits, support: Explanations, spent: int) -> Adaptation:
        """The adaptation of a learner to support rows ``(K, M)`` that cost ``spent`` evaluations."""
        before, after = left_out_errors(learner, support)
        coalitions = 2 * support.attributions.shape[-1]
        pays = pays_after(spent, coalitions, before, after) if learner.learner.kind == "shapley" else nan
        return cls(len(support), spent, before, after, pays)

    def __repr__(self) -> str:
        text = f"{self.rows} support rows for {self.evaluations:,} evaluations; left-out rows' error "
        text += f"{self.zero_shot_error:.2g} before, {self.error:.2g} after; "
        if self.pays_after == inf:
            return f"<{text}does not pay>"
        return f"<{text}pays after {self.pays_after:,.0f} explained rows>" if isfinite(self.pays_after) else f"<{text[:-2]}>"


def left_out_errors(learner: InUnits, support: Explanations) -> tuple[float, float]:
    """Relative squared errors of support rows ``(K, M)`` zero-shot, and after adapting to the others."""
    if len(support) < _FOLDS:
        return nan, nan
    numbers = torch.arange(len(support), device=support.attributions.device)
    truth, missed = support.attributions.square().sum(), torch.zeros(2, dtype=torch.float64)
    for fold in range(_FOLDS):
        others, these = numbers[numbers % _FOLDS != fold], numbers[numbers % _FOLDS == fold]
        asked = support[these]
        evidence = replace(asked.evidence, coalitions=None)
        for index, state in enumerate((None, learner.adapt(support[others]))):
            found = learner.explain(state, evidence).attributions
            missed[index] += float((found - asked.attributions).square().sum())
    errors = missed / float(truth) if float(truth) > 0 else torch.full((2,), nan)
    return float(errors[0]), float(errors[1])


def pays_after(spent: int, coalitions: int, before: float, after: float) -> float:
    """After how many explained rows, of ``coalitions`` each, support rows that cost ``spent`` evaluations pay off.

    >>> round(pays_after(1000, 20, before=0.1, after=0.1 / 2**1.6))  # as good would cost twice as many coalitions
    50
    """
    if not (isfinite(before) and isfinite(after)) or after <= 0:
        return nan
    saved = coalitions * ((before / after) ** (1 / _FALL) - 1)
    return spent / saved if saved > 0 else inf
