"""Errors of all methods on the held-out problems, kept in a file as they come."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
from rich.progress import track
from rich.table import Table

from captum_meta.benchmark.heldout import load_held_out, reference
from captum_meta.benchmark.methods import PATH, SHAPLEY, Method
from captum_meta.functional import attribution_error

_FREE = ("gradient mean",)
_BORDER = ("(leave-one-out + add-one-in) / 2",)
MULTIPLES = (0, 2, 4, 8, 16, 32)
STEPS = (3, 5, 10)


@dataclass(frozen=True)
class Result:
    """One method on one problem at one budget.

    Attributes:
        problem, family, n_players, method: what was explained, by what.
        budget: coalitions as a multiple of M beside three gradients (Shapley), or gradients (path).
        error: relative squared error over the problem's rows.
        seconds: for a row.
    """

    problem: str
    family: str
    n_players: int
    method: str
    budget: int
    error: float
    seconds: float


def compare(kind: str, names: Sequence[str], output: Path, references: Path, methods: Sequence[str] = ()) -> list[Result]:
    """Run every method at every budget on the problems; results already in ``output`` (JSON lines) are kept."""
    done = _read(output)
    known = {(r.problem, r.method, r.budget) for r in done}
    chosen = {name: m for name, m in (SHAPLEY if kind == "shapley" else PATH).items() if not methods or name in methods}
    output.parent.mkdir(parents=True, exist_ok=True)
    usable = [name for name in names if kind == "shapley" or "/trees/" not in name]
    with output.open("a") as file:
        for name in track(usable, description=f"Comparing {kind} methods"):
            for method, budget in _budgets(kind, chosen):
                if (name, method, budget) in known or ("trees" in name and (budget == 0 or method in _FREE)):
                    continue
                result = _measure(kind, name, method, chosen[method], budget, references)
                done.append(result)
                file.write(json.dumps(asdict(result)) + "\n")
                file.flush()
    wanted = set(usable)
    return [r for r in done if r.problem in wanted]


def _budgets(kind: str, methods: dict[str, Method]) -> Iterator[tuple[str, int]]:
    for method in methods:
        if kind == "path":
            yield from ((method, steps) for steps in STEPS)
        elif method in _FREE:
            yield method, 0
        elif method in _BORDER:
            yield method, 2
        else:
            ours = method.startswith("Meta")
            yield from ((method, multiple) for multiple in MULTIPLES if multiple or ours)


def _measure(kind: str, name: str, label: str, method: Method, budget: int, references: Path) -> Result:
    problem = load_held_out(name)
    right = reference(problem, kind, references)
    cost = budget if kind == "path" else budget * problem.n_players + (9 if problem.family != "trees" else 2)
    start = perf_counter()
    values = method(problem, cost)
    seconds = (perf_counter() - start) / len(right)
    error = float(attribution_error(values.double(), right.double()))
    return Result(name, problem.family, problem.n_players, label, budget, error, seconds)


def _read(path: Path) -> list[Result]:
    if not path.is_file():
        return []
    return [Result(**json.loads(line)) for line in path.read_text().splitlines() if line.strip()]


def interval(errors: np.ndarray, draws: int = 1000) -> tuple[float, float]:
    """A 90 % bootstrap interval of the mean over problems."""
    rng = np.random.default_rng(0)
    means = errors[rng.integers(len(errors), size=(draws, len(errors)))].mean(1)
    return float(np.quantile(means, 0.05)), float(np.quantile(means, 0.95))


def table(results: Sequence[Result], title: str) -> Table:
    """Median / mean error over the problems, a row for each method and a column for each budget."""
    budgets = sorted({r.budget for r in results})
    shown = Table(title=title)
    shown.add_column("method")
    for budget in budgets:
        shown.add_column(str(budget), justify="right")
    for method in dict.fromkeys(r.method for r in results):
        cells = []
        for budget in budgets:
            errors = np.array([r.error for r in results if r.method == method and r.budget == budget])
            cells.append(f"{np.median(errors):.4f} / {errors.mean():.4f}" if len(errors) else "")
        shown.add_row(method, *cells)
    return shown
