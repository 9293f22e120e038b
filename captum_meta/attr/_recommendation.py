"""The best way of explaining many rows of one model at equal total cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from captum_meta.attr._memory import FEWEST
from captum_meta.evidence.shapley import CHOSEN_PLAYERS

Way = Literal["zero-shot", "adapt", "memory"]
_GRADIENTS = 9
"""Evaluations that a row's three gradients cost."""
_SUPPORT, _LABEL, _READING = 16, 16, 16
"""Support rows, and evaluations per player of each: its label, and what learners that model f read beside it."""
_SHARE, _READ_PLAYERS = 0.1, 64
"""Most of all evaluations that support rows may cost; most players of rows whose model the default learner models."""
_TRIED = 0.05
"""The same for support rows on trial: rows keep their coalitions, so a failure costs a twentieth more, and no error."""


@dataclass(frozen=True)
class Recommendation:
    """How to explain rows of one model.

    Attributes:
        way: ``"zero-shot"``, each row by itself; ``"adapt"``, after support rows; or ``"memory"``, rows learn from others.
        call: the Python code.
        evaluations: of the model, in all, a gradient counted as three.
        reason: why.
    """

    way: Way
    call: str
    evaluations: int
    reason: str

    def __repr__(self) -> str:
        return f"<{self.way}: {self.call}; {self.evaluations:,} evaluations. {self.reason}>"


def recommend(
    rows: int,
    n_players: int,
    n_samples: int,
    share: float | None = None,
    pays_after: float | None = None,
    has_gradient: bool = True,
) -> Recommendation:
    """For so many rows of so many players, with ``n_samples`` coalitions each.

    Args:
        n_players: rows with as many as have their coalitions chosen without the border are given it once there are support
            rows, and left-out rows do not show what that costs: so these are not tried.
        share: of memory's networks in the rows explained last; None before they have learned.
        pays_after: from how many rows on the present support set pays; None if there is none.
        has_gradient: whether the model has one. Without, rows have nothing but their coalitions, and should keep them all.
    """
    evaluations = rows * (_GRADIENTS + n_samples)
    asked = f"attribute(rows, ..., n_samples={n_samples})"
    support = _SUPPORT * (_GRADIENTS + (_LABEL + _READING) * n_players)
    adapt, read = f"adapt(rows[:{_SUPPORT}], ..., n_samples={_LABEL * n_players})", n_players <= _READ_PLAYERS
    if n_samples == 0 and read and support <= _SHARE * (evaluations + support):
        reason = (
            "Gradients alone tell little of a model that is not known, and support rows cost less than a tenth of it all."
        )
        return Recommendation("adapt", f"MetaKernelShap(model).{adapt}.{asked}", evaluations + support, reason)
    if n_samples < 2 * n_players or rows < FEWEST:
        reason = (
            f"There are fewer than {FEWEST} rows to learn from."
            if rows < FEWEST
            else "Few coalitions are too little to learn from."
        )
        return Recommendation("zero-shot", f"MetaKernelShap(model).{asked}", evaluations, reason)
    if share is None or share > 0:
        reason = "Rows learn from others for 2 % more evaluations at most; a support set would cost more than it is worth."
        return Recommendation("memory", f"MetaKernelShap(model, memory={rows}).{asked}", evaluations, reason)
    nothing = "Rows of this model learn nothing from others"
    if n_samples == 2 * n_players and n_players < CHOSEN_PLAYERS[0]:  # left-out rows show nothing of more
        if pays_after is not None and pays_after <= rows:
            reason = f"{nothing}, and left-out support rows show that these pay after {pays_after:,.0f} rows."
            return Recommendation("adapt", f"attr.{asked}", evaluations, reason)
        if has_gradient and pays_after is None and read and support <= _TRIED * (evaluations + support):
            reason = f"{nothing}, and support rows cost little: ask again after them, whether they pay."
            return Recommendation("adapt", f"attr.{adapt}.{asked}", evaluations + support, reason)
    return Recommendation("zero-shot", f"MetaKernelShap(model).{asked}", evaluations, f"{nothing}.")
