"""Errors beside those of the best other method on each model."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from statistics import geometric_mean

from rich.table import Table

from captum_meta.benchmark.compare import Result
from captum_meta.benchmark.methods import PATH_ZERO_SHOT, ZERO_SHOT
from captum_meta.benchmark.summary import short
from captum_meta.benchmark.tables import table_of

_ROUNDING = 1e-12
"""Where the best method is exact to this, all coalitions are known, and there is nothing to compare."""


def best_peer_ratios(results: Sequence[Result], ours: str) -> dict[tuple[str, int], float]:
    """Our error over the smallest of all methods that are not ours, for each problem and budget that has both.

    >>> errors = {"Meta": 0.1, "A": 0.4, "B": 0.2}
    >>> made = [Result("wine", "mlp", 13, method, 2, error, 0.0) for method, error in errors.items()]
    >>> best_peer_ratios(made, "Meta")
    {('wine', 2): 0.5}
    """
    cells: dict[tuple[str, int], dict[str, float]] = {}
    for result in results:
        cells.setdefault((result.problem, result.budget), {})[result.method] = result.error
    ratios = {}
    for cell, errors in cells.items():
        peers = [error for method, error in errors.items() if not method.startswith("Meta")]
        if ours in errors and peers and min(peers) > _ROUNDING:
            ratios[cell] = max(errors[ours], _ROUNDING) / min(peers)
    return ratios


def best_peer_table(results: Sequence[Result], kind: str, group: Callable[[Result], str]) -> Table | None:
    """Geometric means of these ratios, and on how many models ours is ahead, by group and budget; None without peers."""
    ratios = best_peer_ratios(results, ZERO_SHOT if kind == "shapley" else PATH_ZERO_SHOT)
    if not ratios:
        return None
    budgets, groups = sorted({budget for _, budget in ratios}), {r.problem: group(r) for r in results}
    title = "zero-shot error over that of the best other method on each model: geometric mean (models ahead, of how many)"
    table = table_of(title, ["models", *map(str, budgets)], words=["models"])
    for name in dict.fromkeys(groups.values()):
        some = {
            budget: [r for (problem, b), r in ratios.items() if b == budget and groups[problem] == name]
            for budget in budgets
        }
        table.add_row(name, *map(_cell, some.values()))
    return table


def _cell(ratios: Sequence[float]) -> str:
    ahead = sum(ratio <= 1 for ratio in ratios)
    return f"{short(geometric_mean(ratios))} ({ahead}/{len(ratios)})" if ratios else ""
