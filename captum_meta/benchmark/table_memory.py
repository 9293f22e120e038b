"""`captum-meta benchmark rows`: many rows of one model explained with a memory of each other, and each by itself."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import mean
from time import process_time

from rich.console import Console
from torch import Tensor

from captum_meta._model import Counted
from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.table_models import ExplainedTable, table_models
from captum_meta.benchmark.tables import table_of
from captum_meta.functional import attribution_error

_BUDGETS = (2, 4)


@dataclass(frozen=True)
class Compared:
    """One model at one budget: errors, evaluations and seconds of all rows, each by itself and with memory."""

    model: str
    budget: int
    errors: tuple[float, float]
    evaluations: tuple[int, int]
    seconds: tuple[float, float]

    @property
    def ratio(self) -> float:
        """The error with memory over that without."""
        return self.errors[1] / self.errors[0]


def compare(name: str, table: ExplainedTable, budget: int, exact: Tensor) -> Compared:
    """Explain all rows of a table both ways, with ``budget`` coalitions for each player."""
    found = []
    for memory in (0, len(table.inputs)):
        model, began = Counted(table.model), process_time()
        attr = MetaKernelShap(model, memory=memory)
        values = attr.attribute(table.inputs, target=table.target, n_samples=budget * table.inputs.shape[1])
        error = float(attribution_error(values[: len(exact)], exact))
        found.append((error, model.evaluations, process_time() - began))
    errors, evaluations, seconds = zip(*found, strict=True)
    return Compared(name, budget, errors, evaluations, seconds)


def comparisons(rows: int, judged: int) -> Iterator[Compared]:
    """All models at all budgets, as they are done."""
    for name, make in table_models(rows).items():
        table = make()
        exact = table.exact(judged)
        for budget in _BUDGETS:
            yield compare(name, table, budget, exact)


def main(arguments: Sequence[str]) -> None:
    """Compare rows explained one by one with rows that learn from each other (memory=), on three models."""
    parser = ArgumentParser("captum-meta benchmark rows", description=main.__doc__)
    parser.add_argument("--rows", type=int, default=1000, help="how many rows are explained in one call (default: 1000)")
    parser.add_argument(
        "--judged", type=int, default=100, help="how many of them are compared with exact values (default: 100)"
    )
    options = parser.parse_args(arguments)
    columns = ("model", "coalitions", "by itself", "with memory", "ratio", "evaluations", "seconds")
    title = f"{options.rows:,} rows of one model: relative squared error, each by itself and with memory"
    table = table_of(title, columns, ("model",))
    found = []
    for c in comparisons(options.rows, options.judged):
        found.append(c)
        more, (before, after) = c.evaluations[1] / c.evaluations[0], c.seconds
        numbers = (
            f"{c.errors[0]:.4f}",
            f"{c.errors[1]:.4f}",
            f"{c.ratio:.2f}",
            f"{more:.3f}",
            f"{before:.1f} -> {after:.1f}",
        )
        table.add_row(c.model, f"{c.budget}M", *numbers)
    console = Console()
    console.print(table)
    for budget in _BUDGETS:
        ratios = [c.ratio for c in found if c.budget == budget]
        console.print(f"{budget}M: mean ratio {mean(ratios):.2f}, largest {max(ratios):.2f}")
