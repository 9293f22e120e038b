"""`captum-meta demo`: a classifier on breast-cancer data, or on a table of yours, explained by us and by Captum."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, inf
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from captum.attr import Attribution, IntegratedGradients, KernelShap, ShapleyValueSampling
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from captum_meta._model import Counted
from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap, MetaShapleyValueSampling
from captum_meta.benchmark.references import sampled_shapley
from captum_meta.benchmark.support_cost import evaluations_for
from captum_meta.functional import attribution_error
from captum_meta.games import Game

_ROWS, _PAIRS, _STEPS = 16, 750, 2000
_SWAPS: tuple[tuple[type[Attribution], type[Attribution]], ...] = (
    (KernelShap, MetaKernelShap),
    (ShapleyValueSampling, MetaShapleyValueSampling),
    (IntegratedGradients, MetaIntegratedGradients),
)


@dataclass(frozen=True)
class Subject:
    """Rows ``(N, M)`` of a classifier to explain, against one baseline ``(1, M)``."""

    title: str
    model: Callable[[Tensor], Tensor]
    x: Tensor
    baseline: Tensor
    target: Tensor | None
    names: list[str]

    def explained_by(self, method: Any, **budget: Any) -> Tensor:
        """Attributions ``(N, M)``."""
        values: Tensor = method.attribute(self.x, self.baseline, target=self.target, **budget)
        return values


@dataclass(frozen=True)
class Measured:
    """One method at one budget: evaluations and seconds per row, and the error against the long reference."""

    method: str
    evaluations: int
    seconds: float
    error: float
    values: Tensor


def breast_cancer(rows: int = _ROWS) -> Subject:
    """A small net on scikit-learn's breast-cancer data, and held-out rows."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    x = torch.tensor(data.data, dtype=torch.float32)
    return _trained("breast-cancer data", x, torch.tensor(data.target), list(data.feature_names), rows)


def own_table(path: Path, label: str) -> Subject:
    """A small net that predicts the column ``label`` of a table with numbers, words and gaps, and held-out rows."""
    from captum_meta.training.labelled_table import read_labelled

    table, y = read_labelled(path, label)
    return _trained(str(path), table.values, y, table.columns, _ROWS)


def own_model(name: str, path: Path) -> Subject:
    """Rows of a .csv or .parquet file, and a model of yours, at its likeliest class; the baseline is the mean row."""
    from captum_meta.training.named_model import load_model
    from captum_meta.training.table import read_table

    model, table = load_model(name), read_table(path, None)
    x = table.values[:_ROWS]
    with torch.no_grad():
        outputs = model(x)
    target = outputs.argmax(1) if outputs.dim() == 2 else None
    return Subject(f"{name} on {path}", model, x, table.values.mean(0, keepdim=True), target, table.columns)


def _trained(title: str, x: Tensor, y: Tensor, names: list[str], n_rows: int) -> Subject:
    x = ((x - x.mean(0)) / x.std(0)).nan_to_num()
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    n_train = max(1, min(int(0.7 * len(x)), len(x) - 1))
    train, held_out = order[:n_train], order[n_train:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        first, last = nn.Linear(x.shape[1], 32), nn.Linear(32, int(y.max()) + 1)
        net = nn.Sequential(first, nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), last)
        optimizer = torch.optim.Adam(net.parameters(), 0.01, weight_decay=1e-3)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[train]), y[train]).backward()
            optimizer.step()
    model = nn.Sequential(net, nn.Softmax(1)).eval()
    rows = x[held_out][:n_rows]
    with torch.no_grad():
        target = model(rows).argmax(1)
    return Subject(title, model, rows, torch.zeros(1, x.shape[1]), target, names)


def run(subject: Subject, folder: Path) -> tuple[list[Measured], list[Measured]]:
    """Explain the rows with every method; print tables and write figures into ``folder``. Default calls, and all budgets."""
    console = Console()
    counted = Counted(subject.model)
    with Progress(console=console) as progress:
        task = progress.add_task("Long reference (permutations)", total=ceil(_PAIRS / 100))
        game = Game(subject.model, subject.x, subject.baseline, subject.target)
        shapley = sampled_shapley(game, _PAIRS, advance=lambda: progress.advance(task)).values
        integral = subject.explained_by(IntegratedGradients(subject.model), n_steps=_STEPS, internal_batch_size=4000)
        cases = _budgets(subject.x.shape[1])
        task = progress.add_task(f"Explaining {len(subject.x)} rows", total=2 * len(_SWAPS) + len(cases))

        def measured(kind: type[Attribution], **budget: int) -> Measured:
            counted.evaluations = 0
            seconds, values = _timed(lambda: subject.explained_by(kind(counted), **budget))
            right = integral if issubclass(kind, IntegratedGradients) else shapley
            progress.advance(task)
            spent, name = round(counted.evaluations / len(values)), kind.__name__
            name = name if name.startswith("Meta") else f"Captum {name}"
            return Measured(name, spent, seconds / len(values), float(attribution_error(values, right)), values)

        _timed(lambda: subject.explained_by(MetaKernelShap(subject.model)))  # the first call loads the weights
        swaps = [measured(kind) for pair in _SWAPS for kind in pair]
        results = [measured(kind, **budget) for kind, budget in cases]
    about = f"{len(subject.x)} rows of {subject.title}, {subject.x.shape[1]} features"
    console.print(_table(f"Default calls: what changes when an import is changed\n{about}", swaps, sections=2))
    console.print(_table(f"At every budget\n{about}", results))
    console.print(gain(results))
    _figures(subject, results, shapley, folder, console)
    return swaps, results


def _budgets(n_players: int) -> list[tuple[type[Attribution], dict[str, int]]]:
    """Methods with budgets that double."""
    coalitions = [multiple * n_players for multiple in (2, 4, 8, 16, 32, 64)]
    ours = dict.fromkeys(min(n, 2**n_players - 2) for n in coalitions[:4])  # more coalitions there are not
    plan: list[tuple[type[Attribution], dict[str, int]]] = [(MetaKernelShap, {"n_samples": n}) for n in ours]
    plan += [(KernelShap, {"n_samples": n, "perturbations_per_eval": n}) for n in coalitions]
    plan += [(MetaIntegratedGradients, {"n_steps": n}) for n in (3, 5, 10)]
    return plan + [(IntegratedGradients, {"n_steps": n}) for n in (4, 6, 11, 50)]


def gain(results: Sequence[Measured]) -> str:
    """In one sentence, how many times fewer evaluations MetaKernelShap takes than Captum's KernelShap at its last budget."""
    ours, theirs = (
        [(float(r.evaluations), r.error) for r in results if r.method == m] for m in ("MetaKernelShap", "Captum KernelShap")
    )
    cost, error = theirs[-1]
    needed = evaluations_for(error, ours)
    if needed in (0, inf):
        return f"MetaKernelShap did not reach the error of Captum's KernelShap at {cost:,.0f} evaluations, {error:.2g}."
    return (
        f"Captum's KernelShap has an error of {error:.2g} after {cost:,.0f} evaluations per row; MetaKernelShap after "
        f"{needed:,.0f}: {cost / needed:.0f} times fewer."
    )


def _timed(explain: Callable[[], Tensor]) -> tuple[float, Tensor]:
    """Seconds of a call, and what it returns."""
    start = perf_counter()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        values = explain()
    return perf_counter() - start, values


def _table(title: str, results: Sequence[Measured], sections: int = 0) -> Table:
    """A row for each result; a line after so many of them, or where the method changes."""
    table = Table(title=title)
    table.add_column("method", no_wrap=True)
    for column in ("evaluations per row", "milliseconds per row", "relative error"):
        table.add_column(column, justify="right")
    for number, result in enumerate(results):
        last = number + 1 == len(results) or results[number + 1].method != result.method
        ends = (number + 1) % sections == 0 if sections else last
        cells = (f"{result.evaluations:,}", f"{1000 * result.seconds:.2f}", f"{result.error:.5f}")
        table.add_row(result.method, *cells, end_section=ends)
    return table


def _figures(subject: Subject, results: Sequence[Measured], reference: Tensor, folder: Path, console: Console) -> None:
    try:
        from captum_meta.visualization import bars, error_against_cost
    except ImportError:
        console.print("No figures: install matplotlib with `pip install 'captum-meta[plots]'`.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    shap = [result for result in results if "Kernel" in result.method]
    curves = {m: [(r.evaluations, r.error) for r in shap if r.method == m] for m in dict.fromkeys(r.method for r in shap)}
    shown = [next(r for r in shap if r.method == method and r.evaluations >= 4 * len(subject.names)) for method in curves]
    row = {"long reference": reference[0]} | {f"{r.method}, {r.evaluations} evaluations": r.values[0] for r in shown}
    figures = {
        "error_against_cost.png": error_against_cost(curves, f"Shapley values: {subject.title}"),
        "attributions_of_one_row.png": bars(row, subject.names),
    }
    for file, figure in figures.items():
        figure.savefig(folder / file, dpi=150)
        console.print(f"Figure: {folder / file}")


def main(arguments: Sequence[str]) -> None:
    """Explain a classifier with the shipped explainers and with Captum's methods, and compare them."""
    parser = ArgumentParser(prog="captum-meta demo", description=main.__doc__)
    data = "a table of yours (.csv, .parquet) in place of breast-cancer data; words and gaps become numbers (with --label)"
    model = "package.module:callable, a model of yours that takes the rows of --data as numbers; none is trained"
    parser.add_argument("--data", type=Path, metavar="FILE", help=data)
    parser.add_argument("--label", metavar="COLUMN", help="the column of --data that a classifier learns to predict")
    parser.add_argument("--model", metavar="NAME", help=model)
    parser.add_argument(
        "--folder",
        type=Path,
        metavar="FOLDER",
        default=Path("captum_meta_demo"),
        help="folder for the figures (default: captum_meta_demo)",
    )
    options = parser.parse_args(arguments)
    if options.data is None:
        if options.label or options.model:
            parser.error("--label and --model are for the rows of --data: pass it too.")
        subject = breast_cancer()
    elif (options.label is None) == (options.model is None):
        parser.error("with --data pass --label, the column to predict, or --model, a model of yours.")
    else:
        try:
            subject = own_table(options.data, options.label) if options.label else own_model(options.model, options.data)
        except (ValueError, ImportError, FileNotFoundError) as error:
            parser.exit(1, f"captum-meta demo: {error}\n")
    run(subject, options.folder)
