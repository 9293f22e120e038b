"""Errors of all methods on the held-out problems, kept in a file as they come."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter

from rich.progress import track

from captum_meta.benchmark.heldout import load_held_out, reference
from captum_meta.benchmark.heldout_data import available
from captum_meta.benchmark.journal import append_line, read_lines
from captum_meta.benchmark.methods import BORDER_MEAN, GRADIENT_MEAN, METHODS, Method, installed
from captum_meta.functional import attribution_error

BUDGETS = {"shapley": (0, 2, 4, 8, 16, 32), "path": (3, 5, 10)}
"""Coalitions as a multiple of M beside three gradients, and gradients."""


@dataclass(frozen=True)
class Result:
    """One method on one problem at one budget.

    Attributes:
        problem, family, n_players, method: the problem, its family, and the method.
        budget: coalitions as a multiple of M beside three gradients (Shapley), or gradients (path).
        error: relative squared error over the problem's rows.
        seconds: per row.
    """

    problem: str
    family: str
    n_players: int
    method: str
    budget: int
    error: float
    seconds: float

    def evaluations(self, kind: str) -> int:
        """Per row, a gradient counted as 3."""
        if kind == "path":
            return 3 * (self.budget + self.method.startswith("Meta") + self.method.endswith("completed"))
        return self.budget * self.n_players + (2 if self.family == "trees" else 9)


def compare(
    kind: str,
    names: Sequence[str],
    output: Path,
    references: Path,
    methods: Sequence[str] = (),
    further: Mapping[str, Method] | None = None,
    budgets: Sequence[int] = (),
) -> list[Result]:
    """Run every method at every budget on the problems; results already in ``output`` (JSON lines) are kept.

    Args:
        kind: ``"shapley"`` or ``"path"``.
        names: of held-out problems; those without a gradient are left out of path comparisons, and those whose data
            are not installed with a warning.
        references: folder in which the problems' references are kept.
        methods: names of methods; by default all whose libraries are installed.
        further: methods besides those of the tables in :mod:`captum_meta.benchmark.methods`.
        budgets: as :class:`Result` has them; by default those of :data:`BUDGETS`.

    Raises:
        ValueError: if there is no method of a name.
    """
    chosen = {**choose_methods(METHODS[kind], methods), **(further or {})}
    usable = _usable(kind, names)
    done = [Result(**entry) for entry in read_lines(output)]
    known = {(r.problem, r.method, r.budget) for r in done}
    for name in track(usable, description=f"Comparing {kind} methods"):
        for method, budget in _measured(chosen, budgets or BUDGETS[kind]):
            if (name, method, budget) in known or ("trees" in name and (budget == 0 or method == GRADIENT_MEAN)):
                continue
            result = _measure(kind, name, method, chosen[method], budget, references)
            done.append(result)
            append_line(output, asdict(result))
    return [r for r in done if r.problem in usable]


def _usable(kind: str, names: Sequence[str]) -> list[str]:
    missing = [name for name in names if not available(name.split("/")[0])]
    if missing:
        warnings.warn(
            f"The data of {missing} are not installed, so they are left out: pip install 'captum-meta[benchmark,text]'.",
            stacklevel=3,
        )
    return [name for name in names if name not in missing and (kind == "shapley" or "/trees/" not in name)]


def choose_methods(table: Mapping[str, Method], names: Sequence[str]) -> dict[str, Method]:
    """The methods of these names; of no names, all whose libraries are installed.

    Raises:
        ValueError: if there is no method of a name.
    """
    unknown = [name for name in names if name not in table]
    if unknown:
        raise ValueError(f"There are no methods {unknown}: pass some of {list(table)}.")
    return {name: method for name, method in table.items() if (name in names if names else installed(name))}


def _measured(methods: Iterable[str], budgets: Sequence[int]) -> Iterator[tuple[str, int]]:
    """Each method and budget that there is; only ours explain by gradients alone."""
    only = {GRADIENT_MEAN: 0, BORDER_MEAN: 2}
    for method in methods:
        for budget in budgets:
            if budget == only[method] if method in only else budget or method.startswith("Meta"):
                yield method, budget


def _measure(kind: str, name: str, label: str, method: Method, budget: int, references: Path) -> Result:
    problem = load_held_out(name)
    right = reference(problem, kind, references)
    cost = budget if kind == "path" else budget * problem.n_players + problem.base_cost
    start = perf_counter()
    values = method(problem, cost)
    seconds = (perf_counter() - start) / len(right)
    error = float(attribution_error(values.double(), right.double()))
    return Result(name, problem.family, problem.n_players, label, budget, error, seconds)
