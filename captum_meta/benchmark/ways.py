"""`captum-meta benchmark ways`: many rows of a held-out model, zero-shot, adapted, or with memory, at equal total cost."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import exp, inf, log
from pathlib import Path
from statistics import mean
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from captum_meta._model import Counted
from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.heldout import (
    HeldOutProblem,
    explained,
    held_out_names,
    load_held_out,
    quick_names,
    reference,
    whole_table,
)
from captum_meta.benchmark.journal import kept, read_lines
from captum_meta.benchmark.problem import player_values
from captum_meta.benchmark.tables import table_of
from captum_meta.functional import attribution_error

ROWS, BUDGETS = (100, 1000, 10_000), (2, 4)
ZERO_SHOT, ADAPT, CHEAP, MEMORY = "zero-shot", "adapt", "adapt, 16M per label", "memory"
WAYS = (ZERO_SHOT, ADAPT, CHEAP, MEMORY)
TRIED = "zero-shot, after support rows in vain"
_EQUAL = 1e-6
"""Errors below count as equal."""
_MOST_KNOWN = 1000
"""Rows from which memory learns: the networks' time grows with them, and what they gain by more than 1,000 is small."""
_FIRST_BASELINE = 128
"""Index of the table's first baseline row, as in the held-out problems."""


@dataclass(frozen=True)
class Outcome:
    """One held-out model, some of its rows, and the errors of all ways at the same total cost.

    Attributes:
        problem: its name.
        rows, budget: number of rows, and evaluations of each beside its gradients, in multiples of the players.
        known: number of rows from which memory learns: as many as the table has, at most 1,000.
        errors: relative squared error over the 12 judged rows by way; infinite where the support set alone costs more.
        recommended: by the front end, after memory has been tried, and after support rows where they were recommended.
    """

    problem: str
    rows: int
    budget: int
    known: int
    errors: dict[str, float]
    recommended: str

    @property
    def against_best(self) -> float:
        """The error of the recommended way over that of the best."""
        return _at_least(self.errors[self.recommended]) / _at_least(min(self.errors.values()))

    @property
    def against_zero_shot(self) -> float:
        """The error of the recommended way over that of zero-shot."""
        return _at_least(self.errors[self.recommended]) / _at_least(self.errors[ZERO_SHOT])


def _at_least(error: float) -> float:
    return max(error, _EQUAL)


def outcomes(name: str, done: Sequence[Outcome], references: Path) -> Iterator[Outcome]:
    """Outcomes of a held-out model that are not ``done``."""
    wanted = [(rows, budget) for budget in BUDGETS for rows in ROWS]
    wanted = [pair for pair in wanted if pair not in [(o.rows, o.budget) for o in done if o.problem == name]]
    if not wanted:
        return
    problem = load_held_out(name)
    judge = _Judge(problem, references)
    adapted = {way: judge.adapted(labels) for way, labels in ((ADAPT, None), (CHEAP, 16 * problem.n_players))}
    known: dict[tuple[int, int], tuple[MetaKernelShap, float]] = {}
    for rows, budget in wanted:
        n_samples = budget * problem.n_players
        errors = {ZERO_SHOT: judge.error(MetaKernelShap(problem.model), n_samples)}
        for way, (attr, spent) in adapted.items():
            left = n_samples - spent / rows
            errors[way] = judge.error(attr, int(left)) if left >= 0 else inf
        count = min(rows, judge.most)
        if (count, budget) not in known:
            learned = MetaKernelShap(problem.model, memory=count)
            known[count, budget] = learned, judge.error(learned, n_samples, count)
        learned, errors[MEMORY] = known[count, budget]
        recommended: str = learned.recommend(rows, problem.n_players, n_samples).way
        if recommended == ADAPT:
            attr, spent = adapted[CHEAP]
            recommended = CHEAP if attr.adaptation.pays_after <= rows else TRIED
            errors[TRIED] = judge.error(MetaKernelShap(problem.model), int(n_samples - spent / rows))
        yield Outcome(name, rows, budget, count, errors, recommended)


class _Judge:
    """Measures errors on a problem's first 12 rows, which have a reference."""

    def __init__(self, problem: HeldOutProblem, references: Path) -> None:
        self.problem, self.truth = problem, reference(problem, "shapley", references)
        self.most = min(_MOST_KNOWN, len(whole_table(problem.name).x))

    def rows(self, count: int) -> dict[str, Any]:
        """Arguments for the judged rows and others of the table."""
        if count <= len(self.truth):
            return dict(self.problem.arguments)
        total = len(whole_table(self.problem.name).x)
        rows, starts = ((first + torch.arange(count)) % total for first in (int(0.7 * total), _FIRST_BASELINE))
        return explained(self.problem.name, self.problem.model, rows, starts)

    def adapted(self, labels: int | None) -> tuple[MetaKernelShap, int]:
        """The default, adapted to 16 rows with labels from ``labels`` coalitions, and the evaluations it took."""
        model = Counted(self.problem.model)
        assert self.problem.support is not None
        return MetaKernelShap(model).adapt(**self.problem.support, n_samples=labels), model.evaluations

    def error(self, attr: MetaKernelShap, n_samples: int, count: int = 0) -> float:
        """Error of the judged rows, explained beside ``count`` others."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found = attr.attribute(**self.rows(count), n_samples=n_samples)
        return float(attribution_error(player_values(self.problem, found[: len(self.truth)]).double(), self.truth.double()))


def _cell(error: float, recommended: bool) -> str:
    return "-" if error == inf else f"{error:.4f}{'*' * recommended}"


def table(found: Sequence[Outcome]) -> Table:
    """Errors of each model, those recommended marked."""
    ways = (*WAYS, TRIED)
    columns = ("model", "rows", "coalitions", "known", *ways)
    shown = table_of("Error at equal total cost; * is recommended, - costs more than there is", columns, ("model",))
    for o in found:
        cells = [_cell(o.errors[way], way == o.recommended) if way in o.errors else "" for way in ways]
        shown.add_row(o.problem, f"{o.rows:,}", f"{o.budget}M", f"{o.known:,}", *cells)
    return shown


def summary(found: Sequence[Outcome]) -> list[str]:
    """For each number of rows and each budget: the recommended way's errors, in the geometric mean."""
    lines = []
    for rows in ROWS:
        for budget in BUDGETS:
            some = [o for o in found if o.rows == rows and o.budget == budget]
            if some:
                zero_shot, best = [o.against_zero_shot for o in some], [o.against_best for o in some]
                above = sum(ratio > 1.1 for ratio in best)
                lines.append(
                    f"{rows:,} rows, {budget}M: error of the recommended way over zero-shot's "
                    f"{exp(mean(map(log, zero_shot))):.2f} in the geometric mean, at most {max(zero_shot):.2f}; over "
                    f"that of the best way at most {max(best):.2f}, above 1.1 in {above} of {len(some)} models"
                )
    return lines


def main(arguments: Sequence[str]) -> None:
    """Explain 100, 1,000 and 10,000 rows of held-out models at equal total cost: zero-shot, adapted, and with memory."""
    parser = ArgumentParser(prog="captum-meta benchmark ways", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="a few problems of every family")
    parser.add_argument("--output", type=Path, default=Path("runs/ways.jsonl"), help="JSON lines, taken up again")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    done = [Outcome(**entry) for entry in read_lines(options.output)]
    names = quick_names() if options.quick else held_out_names()
    names = [name for name in names if not name.startswith("sentences")]  # whose players are the rows' own
    for name in names:
        done += kept(options.output, outcomes(name, done, options.output.parent / "references"))
    found = [o for o in done if o.problem in names]
    console = Console(width=140)
    console.print(table(found))
    for line in summary(found):
        console.print(line, highlight=False)
