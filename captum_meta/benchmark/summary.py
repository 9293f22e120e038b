"""Medians and means over problems with bootstrap intervals: as tables, files and curves."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
from rich.table import Table
from rich.text import Text

from captum_meta.benchmark.compare import Result

_PATCHES = ("digits-patches", "mnist-patches", "mnist-blocks")
_FAMILIES = {"rnn": "recurrent nets", "trees": "boosted trees", "minilm": "sentence tokens"}
_SIZES = ((8, 12), (13, 20))


@dataclass(frozen=True)
class Summary:
    """One method at one budget on a group of problems.

    Attributes:
        group, method, budget: of the results.
        problems: their number.
        evaluations: per row, the median over the problems (a gradient counts as 3).
        median, mean: of the errors; low and high are the ends of 90 % bootstrap intervals.
        seconds: per row, the median over the problems.
    """

    group: str
    method: str
    budget: int
    problems: int
    evaluations: float
    median: float
    median_low: float
    median_high: float
    mean: float
    mean_low: float
    mean_high: float
    seconds: float


def family_group(result: Any) -> str:
    """The kind of model that was explained, of anything with a ``problem`` and a ``family``."""
    if result.problem.split("/")[0] in _PATCHES:
        return "image patches"
    return _FAMILIES.get(result.family, "MLPs, residual nets, transformers")


def size_group(result: Result) -> str:
    """How many players it has."""
    for low, high in _SIZES:
        if result.n_players <= high:
            return f"{low} to {high} players"
    return f"{_SIZES[-1][1] + 1} players and more"


def interval(errors: np.ndarray, statistic: Callable[..., np.ndarray] = np.mean, draws: int = 1000) -> tuple[float, float]:
    """A 90 % bootstrap interval of a statistic over problems (Efron 1979), by percentiles.

    Problems on the same data are drawn as if they were independent, so the intervals are rather too short than too long.
    """
    rng = np.random.default_rng(0)
    drawn = statistic(errors[rng.integers(len(errors), size=(draws, len(errors)))], axis=1)
    return float(np.quantile(drawn, 0.05)), float(np.quantile(drawn, 0.95))


def summarise(results: Sequence[Result], kind: str, group: Callable[[Result], str]) -> list[Summary]:
    """A summary for each group, method and budget, in the order in which they first come."""
    cells: dict[tuple[str, str, int], list[Result]] = {}
    for result in sorted(results, key=lambda r: r.budget):
        cells.setdefault((group(result), result.method, result.budget), []).append(result)
    groups, methods = _firsts(map(group, results)), _firsts(r.method for r in results)
    order = sorted(cells, key=lambda cell: (groups.index(cell[0]), methods.index(cell[1]), cell[2]))
    return [_summary(*cell, cells[cell], kind) for cell in order]


def _firsts(values: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(values))


def _summary(group: str, method: str, budget: int, results: Sequence[Result], kind: str) -> Summary:
    errors = np.array([r.error for r in results])
    evaluations = float(np.median([r.evaluations(kind) for r in results]))
    median, mean = float(np.median(errors)), float(errors.mean())
    intervals = (*interval(errors, np.median), mean, *interval(errors))
    seconds = float(np.median([r.seconds for r in results]))
    return Summary(group, method, budget, len(errors), evaluations, median, *intervals, seconds)


def tables(summaries: Sequence[Summary], unit: str) -> list[Table]:
    """A table for each group: the median of the errors and below it their mean; a column for each budget."""
    shown = []
    for group in _firsts(s.group for s in summaries):
        some = [s for s in summaries if s.group == group]
        budgets = sorted({s.budget for s in some})
        count = max(s.problems for s in some)
        heading = f"{group} ({count} models): median error, below it the mean, with 90 % intervals; {unit}"
        table = Table(title=heading, title_justify="left")
        table.add_column("method", no_wrap=True)
        for budget in budgets:
            table.add_column(str(budget), justify="right")
        for method in _firsts(s.method for s in some):
            cells: dict[int, Text] = {s.budget: _cell(s) for s in some if s.method == method}
            table.add_row(method, *[cells.get(budget, Text()) for budget in budgets])
        shown.append(table)
    return shown


def _cell(summary: Summary) -> Text:
    s = summary
    if s.problems == 1:
        return Text(short(s.median))
    median = f"{short(s.median)} [{short(s.median_low)}, {short(s.median_high)}]"
    mean = f"{short(s.mean)} [{short(s.mean_low)}, {short(s.mean_high)}]"
    return Text.assemble(median, "\n", (mean, "dim"))


def short(value: float) -> str:
    """Two significant digits, or one and a power of ten.

    >>> short(0.01234), short(0.5), short(12.3), short(0.00000123)
    ('.012', '.50', '12', '1e-6')
    """
    if value == 0:
        return "0"
    if 1e-4 <= value < 1e4:
        digits = max(0, 1 - int(np.floor(np.log10(value))))
        return f"{value:.{digits}f}".removeprefix("0")
    digit, power = f"{value:.0e}".split("e")
    return f"{digit}e{int(power)}"


def write(summaries: Sequence[Summary], path: Path) -> None:
    """Write summaries as JSON or CSV, as the path's ending says.

    Raises:
        ValueError: for another ending.
    """
    if path.suffix not in (".json", ".csv"):
        raise ValueError(f"{path} ends neither with .json nor with .csv: pass a path that does.")
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [asdict(s) for s in summaries]
    if path.suffix == ".json":
        path.write_text(json.dumps(entries, indent=1) + "\n")
        return
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Summary)])
        writer.writeheader()
        writer.writerows(entries)


def curves(summaries: Sequence[Summary]) -> dict[str, dict[str, list[tuple[float, float]]]]:
    """For each group, each method's (evaluations per row, median error)."""
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for s in summaries:
        panels.setdefault(s.group, {}).setdefault(s.method, []).append((s.evaluations, s.median))
    return panels
