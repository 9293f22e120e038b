"""Results of a benchmark of one model: as a table, as files, as a figure, and in one sentence."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape
from io import StringIO
from math import ceil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from captum_meta.benchmark.references import Reference
from captum_meta.benchmark.summary import short
from captum_meta.export import imported

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_DRAWS = 2000


@dataclass(frozen=True)
class Measurement:
    """One method at one budget.

    Attributes:
        method: its name.
        budget, evaluations: model evaluations per row that it was given, and that it was counted to spend.
        squared_errors, squared_references: of each row.
        seconds: per row.
        metrics: means over the rows of metrics of :mod:`captum_meta.functional`.
        support_evaluations: spent in all on the rows that it was adapted to.
    """

    method: str
    budget: int
    evaluations: float
    squared_errors: list[float]
    squared_references: list[float]
    seconds: float
    metrics: dict[str, float] = field(default_factory=dict)
    support_evaluations: int = 0

    @property
    def error(self) -> float:
        """Relative squared error over all rows."""
        return float(sum(self.squared_errors) / sum(self.squared_references))

    @property
    def interval(self) -> tuple[float, float]:
        """A 90 % bootstrap interval of the error, over rows."""
        drawn = self.drawn_errors()
        return float(np.quantile(drawn, 0.05)), float(np.quantile(drawn, 0.95))

    def drawn_errors(self) -> np.ndarray:
        """Errors of bootstrap draws of the rows; the same draws for every method."""
        errors, sizes = np.array(self.squared_errors), np.array(self.squared_references)
        rows = np.random.default_rng(0).integers(len(errors), size=(_DRAWS, len(errors)))
        return errors[rows].sum(1) / sizes[rows].sum(1)


@dataclass(frozen=True, repr=False)
class ModelBenchmark:
    """Results of :func:`captum_meta.benchmark.benchmark_model`.

    Attributes:
        kind: ``"shapley"`` or ``"path"``.
        n_players: M.
        reference: what the methods are compared with.
        measurements: each method at each budget.
    """

    kind: str
    n_players: int
    reference: Reference
    measurements: tuple[Measurement, ...]

    @property
    def recommendation(self) -> str:
        """Which method at which budget is best for this model: the cheapest one whose error is 1 % or less."""
        return self.recommend()

    def recommend(self, tolerance: float = 0.01) -> str:
        """The cheapest method whose error is ``tolerance`` or less, or the one that came closest."""
        if not self.measurements:
            return "Nothing was measured."
        reached = [m for m in self.measurements if m.error <= tolerance]
        if not reached:
            best = min(self.measurements, key=lambda m: m.error)
            words = [f"No method reached an error of {tolerance:.2g}; {_named(best)} came closest: {self._said(best)}."]
            return " ".join([*words, *self._doubts(best, tolerance)])
        best = min(reached, key=lambda m: (round(m.evaluations), m.error))
        words = [f"{_named(best)} is the cheapest to reach an error of {tolerance:.2g}: {self._said(best)}."]
        others = [m for m in reached if m.method != best.method]
        plain = [m for m in others if not m.support_evaluations]
        if others:
            following = min(others, key=lambda m: (round(m.evaluations), m.error))
            words.append(f"Next comes {_named(following)}, with {short(following.error)}.")
        else:
            words.append("No other method reached it.")
        if best.support_evaluations:
            words.append(_paid(best, plain))
        return " ".join([*words, *self._doubts(best, tolerance)])

    def _said(self, m: Measurement) -> str:
        low, high = m.interval
        return f"{short(m.error)} (90 % interval {short(low)} to {short(high)}, {len(m.squared_errors)} rows)"

    def _doubts(self, best: Measurement, tolerance: float) -> list[str]:
        doubts = []
        rivals = [m for m in self.measurements if m.method != best.method and m.evaluations <= best.evaluations + 0.5]
        if rivals:
            rival = min(rivals, key=lambda m: m.error)
            if float((best.drawn_errors() < rival.drawn_errors()).mean()) < 0.95:
                doubts.append(
                    f"These rows do not tell it apart from {_named(rival)}, with {short(rival.error)}: explain more."
                )
        if self.reference.error > 0.2 * min(tolerance, best.error):
            doubts.append(
                f"The reference ({self.reference.method}) is itself off by about {short(self.reference.error)}: "
                "raise reference_pairs."
            )
        return doubts

    def table(self) -> Table:
        """A row for each method and budget; the lowest error of each budget is bold."""
        table = Table(title=self._title(f", {len(self.reference.values)} rows"), caption=self._caption())
        names, lines = self._lines()
        for name in names:
            first = name == "method"
            table.add_column(name, justify="left" if first else "right", no_wrap=first)
        previous = None
        for method, *cells in lines:
            if previous not in (None, method):
                table.add_section()
            previous = method
            table.add_row(method, *cells)
        return table

    def _lines(self) -> tuple[list[str], list[list[str]]]:
        """Names of the columns, and the cells of each method and budget; what is bold is in [bold]."""
        metrics = list(self.measurements[0].metrics) if self.measurements else []
        names = ["method", "evaluations per row", "error", "90 % interval", "seconds per row", *metrics]
        lines = []
        for m in self.measurements:
            lowest = m.error <= min(o.error for o in self.measurements if o.evaluations <= m.evaluations + 0.5)
            error = f"[bold]{short(m.error)}[/bold]" if lowest else short(m.error)
            low, high = m.interval
            numbers = [f"{m.metrics[name]:.4g}" for name in metrics]
            spent = f"{m.evaluations:,.0f}"
            lines.append([m.method, spent, error, f"{short(low)}-{short(high)}", f"{m.seconds:.4f}", *numbers])
        return [name.replace("_", " ") for name in names], lines

    def _title(self, end: str = "") -> str:
        return f"{'Shapley values' if self.kind == 'shapley' else 'Path integrals'}, {self.n_players} features{end}"

    def _caption(self) -> str:
        return f"Reference: {self.reference.method}; its own error {short(self.reference.error)}"

    def rows(self) -> list[dict[str, Any]]:
        """One dictionary of plain numbers for each method and budget."""
        rows = []
        for m in self.measurements:
            low, high = m.interval
            row = {"method": m.method, "budget": m.budget, "evaluations": m.evaluations, "error": m.error}
            row |= {"error_low": low, "error_high": high, "seconds": m.seconds, **m.metrics}
            rows.append({**row, "support_evaluations": m.support_evaluations})
        return rows

    def to_json(self, path: str | Path) -> None:
        """Write the rows, the reference's error and the recommendation."""
        content = {"kind": self.kind, "n_players": self.n_players, "n_rows": len(self.reference.values)}
        reference = {"method": self.reference.method, "error": self.reference.error}
        whole = {**content, "reference": reference, "recommendation": self.recommendation, "results": self.rows()}
        Path(path).write_text(json.dumps(whole, indent=1) + "\n")

    def to_csv(self, path: str | Path) -> None:
        """Write the rows."""
        rows = self.rows()
        with Path(path).open("w", newline="") as file:
            writer = csv.DictWriter(file, list(rows[0]) if rows else [])
            writer.writeheader()
            writer.writerows(rows)

    def to_pandas(self) -> pandas.DataFrame:
        """The rows as a table (pandas is needed)."""
        table: pandas.DataFrame = imported("pandas", "to_pandas").DataFrame(self.rows())
        return table

    def figure(self, axes: Axes | None = None) -> Figure:
        """Error against cost with 90 % intervals, as a matplotlib figure (of ``axes``, where given)."""
        from captum_meta.visualization import error_against_cost

        curves: dict[str, list[tuple[float, float]]] = {}
        intervals: dict[str, list[tuple[float, float]]] = {}
        for m in self.measurements:
            curves.setdefault(m.method, []).append((m.evaluations, m.error))
            intervals.setdefault(m.method, []).append(m.interval)
        return error_against_cost(curves, self._title(), intervals=intervals, axes=axes)

    def __repr__(self) -> str:
        """The table and the recommendation, where Python or a notebook shows this."""
        return self._printed().export_text()

    def _repr_html_(self) -> str:
        names, lines = self._lines()
        head = "".join(f"<th>{escape(name)}</th>" for name in names)
        rows = ["".join(f"<td>{escape(cell)}</td>" for cell in cells) for cells in lines]
        body = "".join(f"<tr>{row}</tr>" for row in rows).replace("[bold]", "<b>").replace("[/bold]", "</b>")
        title = f"<p>{escape(self._title(f', {len(self.reference.values)} rows'))}. {escape(self._caption())}.</p>"
        table = f'<table class="dataframe"><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>'
        return f"{title}{table}<p>{escape(self.recommendation)}</p>"

    def _printed(self) -> Console:
        """A console that has recorded the table and the recommendation."""
        console = Console(record=True, file=StringIO(), width=140, force_jupyter=False)  # else a notebook shows it at once
        console.print(self.table())
        console.print(self.recommendation)
        return console


def _named(m: Measurement) -> str:
    return f"{m.method} at {m.evaluations:,.0f} evaluations per row"


def _paid(best: Measurement, plain: Sequence[Measurement]) -> str:
    """After how many explained rows the support rows of ``best`` have paid."""
    cost = f"Its support rows cost {best.support_evaluations:,} evaluations in all"
    if not plain:
        return f"{cost}; without them nothing reached this error."
    saved = min(m.evaluations for m in plain) - best.evaluations
    if saved <= 0:
        return f"{cost}, which save nothing."
    return f"{cost}, which have paid after {ceil(best.support_evaluations / saved):,} explained rows."
