"""The cost of an adapted method's support rows, and after how many explained rows they pay off."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import exp, inf, log
from statistics import median

import torch
from rich.table import Table

from captum_meta._model import Counted
from captum_meta.benchmark.compare import Result
from captum_meta.benchmark.heldout import SUPPORT_ROWS
from captum_meta.benchmark.methods import ADAPTED, PATH_ADAPTED, PATH_ZERO_SHOT, ZERO_SHOT, path_learner, shapley_learner
from captum_meta.benchmark.problem import Problem
from captum_meta.benchmark.tables import table_of

PAIRS = {"shapley": (ZERO_SHOT, ADAPTED), "path": (PATH_ZERO_SHOT, PATH_ADAPTED)}
_EQUAL = 1e-4


@lru_cache
def support_cost(kind: str, n_players: int, has_gradient: bool = True) -> int:
    """Evaluations that the shipped default spends on 16 support rows, references included.

    They are counted on a linear model, for they depend on the number of players alone.
    """
    model = Counted(lambda x: x.sum(1) if has_gradient else x.detach().sum(1))
    rows = {"inputs": torch.ones(SUPPORT_ROWS, n_players)}
    problem = Problem(model=model, arguments={"inputs": torch.ones(1, n_players)}, support=rows, has_gradient=has_gradient)
    counts = []
    for adapt in (True, False):
        model.evaluations = 0
        if kind == "shapley":
            shapley_learner(None, adapt)(problem, 2 * n_players + problem.base_cost)
        else:
            path_learner(None, adapt)(problem, 10)
        counts.append(model.evaluations)
    return counts[0] - counts[1]


def evaluations_for(error: float, curve: Sequence[tuple[float, float]]) -> float:
    """Evaluations per row at which a curve of (evaluations, error) falls to ``error``; infinite if it never does.

    Between two points errors are interpolated as a power of the evaluations.

    >>> evaluations_for(0.01, [(10, 0.1), (40, 0.001)])
    20.0
    """
    previous: tuple[float, float] | None = None
    for cost, reached in curve:
        if reached <= error:
            if previous is None or previous[1] <= error:
                return float(cost)
            share = (log(previous[1]) - log(error)) / (log(previous[1]) - log(max(reached, 1e-300)))
            return round(exp(log(previous[0]) + share * (log(cost) - log(previous[0]))), 6)
        previous = (cost, reached)
    return inf


def rows_until_paid(cost: float, spent: float, error: float, without: Sequence[tuple[float, float]]) -> tuple[float, bool]:
    """Explained rows after which support rows have paid: their cost, over what each row then saves.

    Args:
        cost: evaluations spent on the support rows.
        spent, error: evaluations per row, and the error, of the adapted method.
        without: (evaluations, error) of the method that is not adapted, in ascending order.

    Returns:
        The number of rows, infinite if a row saves nothing; and whether it is exact rather than an upper bound, because
        the method that is not adapted does not reach the error at any budget measured.
    """
    needed = evaluations_for(error, without)
    exact = needed < inf
    saved = (needed if exact else without[-1][0]) - spent
    return (cost / saved if saved > 0 else inf), exact


def support_table(results: Sequence[Result], kind: str) -> Table | None:
    """For each number of players: the support rows' cost, and the rows after which they pay; None without results."""
    plain, adapted = PAIRS[kind]
    budgets = sorted({r.budget for r in results if r.method == adapted})
    table = table_of(
        f"{SUPPORT_ROWS} support rows: their cost, and the median of explained rows after which they have paid, "
        "against the same method without them (never: they save nothing; <: the error is not reached without them)",
        ("players", "models", "evaluations in all", *[f"at {budget}" for budget in budgets]),
    )
    keys = sorted({(r.n_players, r.family == "trees") for r in results if r.method == adapted})
    for n_players, trees in keys:
        some = [r for r in results if r.n_players == n_players and (r.family == "trees") == trees]
        cost = support_cost(kind, n_players, not trees)
        cells = [_paid([r for r in some if r.method in (plain, adapted)], kind, budget, cost) for budget in budgets]
        label = f"{n_players}{', no gradient' if trees else ''}"
        table.add_row(label, str(len({r.problem for r in some})), f"{cost:,}", *cells)
    return table if keys else None


def outcomes(results: Sequence[Result], kind: str) -> dict[int, tuple[int, int, int]]:
    """For each budget: models compared, and those that support rows made better and worse by more than a tenth.

    Errors under 1e-4 count as equal.
    """
    plain, adapted = PAIRS[kind]
    before = {(r.problem, r.budget): r.error for r in results if r.method == plain}
    pairs = [(r.budget, before.get((r.problem, r.budget)), r.error) for r in results if r.method == adapted]
    counts = {}
    for budget in sorted({budget for budget, _, _ in pairs}):
        some = [(max(old, _EQUAL), max(new, _EQUAL)) for b, old, new in pairs if b == budget and old is not None]
        counts[budget] = (len(some), sum(new < 0.9 * old for old, new in some), sum(new > 1.1 * old for old, new in some))
    return counts


def outcome_table(results: Sequence[Result], kind: str) -> Table:
    """The counts of :func:`outcomes`."""
    columns = ("budget", "models", "better", "worse")
    table = table_of(f"{SUPPORT_ROWS} support rows beside none: models by more than a tenth", columns)
    for budget, counts in outcomes(results, kind).items():
        table.add_row(str(budget), *map(str, counts))
    return table


def _paid(results: Sequence[Result], kind: str, budget: int, cost: int) -> str:
    plain, adapted = PAIRS[kind]
    outcomes = []
    for chosen in (r for r in results if r.method == adapted and r.budget == budget):
        same = sorted((r for r in results if r.problem == chosen.problem and r.method == plain), key=lambda r: r.budget)
        if same:
            curve = [(float(r.evaluations(kind)), r.error) for r in same]
            outcomes.append(rows_until_paid(cost, chosen.evaluations(kind), chosen.error, curve))
    if not outcomes:
        return ""
    rows = median(rows for rows, _ in outcomes)
    bound = "" if all(exact for count, exact in outcomes if count == rows) else "<"
    return "never" if rows == inf else f"{bound}{rows:,.0f}"
