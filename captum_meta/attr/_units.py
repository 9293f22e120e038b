"""Units in which outputs of any size are near one, so that their squares neither overflow nor vanish."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta._units import power_of_two
from captum_meta.learners import MetaLearner
from captum_meta.nn import Prediction, ShapleyExplainer
from captum_meta.nn.error_head import ROW_NUMBERS
from captum_meta.types import Evidence, Explanations, Record

_FAR = 2.0**20
"""Numbers up to this factor from one neither overflow nor vanish as squares."""


@dataclass(frozen=True)
class UnitState(Record):
    """A learner's own state, and its unit ``()``."""

    own: Record | None
    unit: Tensor


class InUnits:
    """A learner that reads the explained model's outputs in units of a power of two, and answers in the model's own units.

    With a support set the unit is that of its largest number, else each row has its own. Multiplied by powers of two,
    numbers keep all their digits.

    Args:
        learner: one whose answers scale with the model's output.
    """

    def __init__(self, learner: MetaLearner) -> None:
        self.learner = learner

    def adapt(self, support: Explanations) -> UnitState:
        """The learner's state after rows ``(K, M)``."""
        unit = _of_support(support)
        return UnitState(self.learner.adapt(support.times(1 / unit)), unit)

    def explain(self, state: UnitState | None, evidence: Evidence) -> Prediction:
        """Attributions ``(N, M)`` in units of the output."""
        own, unit = _taken(state, evidence)
        if unit is None:
            return self.learner.explain(own, evidence)
        return self.learner.explain(own, evidence.times(1 / unit)).times(unit)

    def explainer(self, evidence: Evidence) -> Prediction:
        """The answer of the learner's explainer for rows ``(N, M)``."""
        unit = _of_rows(evidence)
        return self.learner.explainer(evidence.times(1 / unit)).times(unit)

    def explain_with_error(self, state: UnitState | None, evidence: Evidence) -> tuple[Prediction, Tensor]:
        """The same, and the relative squared error that nine in ten rows stay below, ``(N,)``."""
        own, unit = _taken(state, evidence)
        if unit is None:
            return self.learner.explain_with_error(own, evidence)
        prediction, estimate = self.learner.explain_with_error(own, evidence.times(1 / unit))
        return prediction.times(unit), estimate

    def error_numbers(self, evidence: Evidence) -> Tensor:
        """Inputs of the error estimate of the learner's explainer at rows ``(N, M)``, without a unit, ``(N, ROW_NUMBERS)``.

        They are 0 for explainers without a posterior.
        """
        evidence = evidence.times(1 / _of_rows(evidence))
        explainer = self.learner.explainer
        if not isinstance(explainer, ShapleyExplainer):
            return evidence.total.new_zeros(len(evidence.total), ROW_NUMBERS)
        return explainer.numbered(explainer.prior(evidence), evidence)[2]

    def telling_pairs(self, evidence: Evidence, members: Tensor, free: Tensor, count: int, n_outputs: int) -> Tensor:
        """Of coalitions ``(R, P, M)`` those to evaluate next, ``(R, count)``, for rows ``(R, M)``; the first free ones
        for explainers without a posterior."""
        explainer = self.learner.explainer
        if not isinstance(explainer, ShapleyExplainer):
            return free.to(torch.uint8).argsort(dim=1, descending=True, stable=True)[:, :count]
        return explainer.telling_pairs(evidence.times(1 / _of_rows(evidence)), members, free, count, n_outputs)

    def left_out_error(self, evidence: Evidence, like: Evidence, unit: Tensor) -> Tensor:
        """Squared error of pairs predicted from all others, of rows ``(N, M)``, ``(N,)``, in squares of the unit ``()``.

        The explainer reads numbers in units of the rows ``like``.
        """
        explainer, of_rows = self.learner.explainer, _of_rows(like)
        assert isinstance(explainer, ShapleyExplainer)
        return explainer.left_out_error(evidence.times(1 / of_rows)) * (of_rows / unit.to(of_rows)).double().square()

    def prediction_error(self, evidence: Evidence, like: Evidence, members: Tensor, differences: Tensor) -> Tensor:
        """Squared error of what rows ``(R, M)`` let expect of pairs ``(R, P, M)``, ``(R,)``, in squared units of f.

        The explainer reads numbers in units of the rows ``like``.
        """
        explainer, of_rows = self.learner.explainer, _of_rows(like)
        assert isinstance(explainer, ShapleyExplainer)
        found = explainer.prediction_error(evidence.times(1 / of_rows), members, differences / of_rows.unsqueeze(1))
        return found * of_rows.double().square()

    def support_weights(self, support: Explanations, evidence: Evidence) -> Tensor:
        """Weights of the support rows ``(K, M)`` in the explanations, ``(N, K)``."""
        unit = _of_support(support)
        return self.learner.support_weights(support.times(1 / unit), evidence.times(1 / unit))


def _taken(state: UnitState | None, evidence: Evidence) -> tuple[Record | None, Tensor | None]:
    """The learner's own state, and the unit; None where all rows are near one as they are."""
    if state is not None:
        return state.own, state.unit
    found = _sizes(evidence)
    size = found.amax(1)
    return None, None if bool(((size > 1 / _FAR) & (size < _FAR)).all()) else _unit(found, evidence)


def _of_rows(evidence: Evidence) -> Tensor:
    """``(N,)``."""
    return _unit(_sizes(evidence), evidence)


def _unit(sizes: Tensor, evidence: Evidence) -> Tensor:
    """Of rows with these largest ``sizes (N, K)``, ``(N,)``."""
    if not bool(sizes.isfinite().all()):
        sizes = torch.cat([part.flatten(1) for part in _parts(evidence)], dim=1)
    return power_of_two(sizes)


def _sizes(evidence: Evidence) -> Tensor:
    """The largest of each kind of numbers, ``(N, K)``."""
    return torch.stack([part.abs().amax(tuple(range(1, part.dim()))) for part in _parts(evidence)], dim=1)


def _parts(evidence: Evidence) -> list[Tensor]:
    parts = [evidence.effects, evidence.total.unsqueeze(1), evidence.curve]
    if evidence.coalitions is not None:
        parts.append(evidence.coalitions.worths)
    return [part.to(evidence.total) for part in parts]


def _of_support(support: Explanations) -> Tensor:
    """``()``."""
    of_rows = _of_rows(support.evidence)
    return torch.cat([of_rows, power_of_two(support.attributions).to(of_rows)]).amax()
