"""Explanations as a smaller budget would have measured them."""

from __future__ import annotations

from dataclasses import replace

from captum_meta.types import LEAVE_ONE_OUT, Explanations


def at_budget(rows: Explanations, budget: int) -> Explanations | None:
    """The rows as measured at a budget.

    Args:
        rows: explanations ``(T, N, M)``.
        budget: coalitions for each player beside the gradients, 0 or at least 2, of Shapley values; gradients of paths.

    Returns:
        The rows; of Shapley values with all coalitions where there are fewer. None for models without gradients at budget 0,
        and for paths with another number of gradients.

    Raises:
        ValueError: for a budget of 1, or below 0.

    >>> from captum_meta.tasks import SyntheticTaskFamily
    >>> at_budget(SyntheticTaskFamily(tasks_per_batch=1, rows=2)[0], 0).evidence.coalitions is None
    True
    """
    if budget < 0 or budget == 1:
        raise ValueError(f"A budget is 0 or at least 2 coalitions for each player, or gradients of a path, got {budget}.")
    evidence = rows.evidence
    if evidence.effects.shape[-1] == evidence.points.shape[-1]:
        return rows if evidence.points.shape[-1] == budget else None
    if budget == 0:
        alone = evidence.measured[..., :LEAVE_ONE_OUT].any()
        return replace(rows, evidence=evidence.gradients_alone()) if bool(alone) else None
    coalitions = evidence.coalitions
    if budget == 2 or coalitions is None:
        return rows.without_coalitions()
    return replace(rows, evidence=replace(evidence, coalitions=coalitions.first(budget * evidence.players.shape[-1])))
