"""`captum-meta demo`: a classifier on breast-cancer data, explained by us and by Captum."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import torch
from captum.attr import Attribution, IntegratedGradients, KernelShap, ShapleyValueSampling
from rich.console import Console
from rich.progress import Progress
from rich.table import Table
from torch import Tensor, nn

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap, MetaShapleyValueSampling
from captum_meta.benchmark.problem import Counted
from captum_meta.functional import attribution_error

_ROWS, _PERMUTATIONS = 16, 1500
_SWAPS: dict[type[Attribution], type[Attribution]] = {
    KernelShap: MetaKernelShap,
    ShapleyValueSampling: MetaShapleyValueSampling,
    IntegratedGradients: MetaIntegratedGradients,
}


@dataclass(frozen=True)
class Measured:
    """One method at one budget: evaluations and seconds per row, and the error against the long reference."""

    method: str
    evaluations: int
    seconds: float
    error: float


def train_classifier() -> tuple[nn.Module, Tensor, list[str]]:
    """A small net on scikit-learn's breast-cancer data, its held-out rows, and the features' names."""
    from sklearn.datasets import load_breast_cancer

    data = load_breast_cancer()
    x = torch.tensor(data.data, dtype=torch.float32)
    x = (x - x.mean(0)) / x.std(0)
    y = torch.tensor(data.target)
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(0))
    train, held_out = order[:400], order[400:]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(30, 32), nn.ReLU(), nn.Linear(32, 32), nn.ReLU(), nn.Linear(32, 2))
        optimizer = torch.optim.Adam(net.parameters(), 0.01, weight_decay=1e-3)
        for _ in range(150):
            optimizer.zero_grad()
            nn.functional.cross_entropy(net(x[train]), y[train]).backward()
            optimizer.step()
    return nn.Sequential(net, nn.Softmax(1)).eval(), x[held_out][:_ROWS], list(data.feature_names)


def long_reference(model: nn.Module, x: Tensor, target: Tensor, update: Callable[[], None]) -> Tensor:
    """Shapley values by antithetic permutations, unbiased, ``(B, M)``; the baseline is the data's mean, zero."""
    n_players = x.shape[1]
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros_like(x, dtype=torch.float64)
    for _ in range(_PERMUTATIONS // 50):
        order = torch.rand(25, n_players, generator=generator).argsort(-1)
        rank = torch.cat([order, order.flip(-1)]).argsort(-1)
        members = rank.unsqueeze(1) < torch.arange(n_players + 1).unsqueeze(1)
        for row in range(len(x)):
            with torch.no_grad():
                worths = model(torch.where(members.flatten(0, 1), x[row], 0.0))[:, target[row]]
            total[row] += worths.double().unflatten(0, (50, -1)).diff(dim=-1).gather(1, rank).sum(0)
        update()
    return (total / (_PERMUTATIONS // 50 * 50)).float()


def _default_calls(model: nn.Module) -> list[tuple[str, Callable[..., Tensor]]]:
    """Captum's methods and those that stand in for them, called with their defaults."""
    pairs = [(method, swap) for method, swap in _SWAPS.items()]
    return [(kind.__name__, kind(model).attribute) for pair in pairs for kind in pair]


def _methods(model: nn.Module, x: Tensor, target: Tensor) -> list[tuple[str, int, Callable[[], Tensor]]]:
    shap, path = MetaKernelShap(model), MetaIntegratedGradients(model)
    cases: list[tuple[str, int, Callable[[], Tensor]]] = []
    for n in (0, 60, 120, 240, 480):
        cases.append(("MetaKernelShap", 9 + n, lambda n=n: shap.attribute(x, target=target, n_samples=n)))  # type: ignore[misc]
    for n in (69, 129, 249, 489, 960, 1920):

        def captum(n: int = n) -> Tensor:
            method = KernelShap(model)
            return method.attribute(x, target=target, n_samples=n, perturbations_per_eval=n)

        cases.append(("Captum KernelShap", n, captum))
    for n in (3, 5, 10):
        cases.append(("MetaIntegratedGradients", 3 * n + 3, lambda n=n: path.attribute(x, target=target, n_steps=n)))  # type: ignore[misc]
    for n in (4, 6, 11, 50):

        def gradients(n: int = n) -> Tensor:
            return IntegratedGradients(model).attribute(x, target=target, n_steps=n)

        cases.append(("Captum IntegratedGradients", 3 * n, gradients))
    return cases


def run(folder: Path) -> list[Measured]:
    """Explain the held-out rows with every method; print the table and write the figures into ``folder``."""
    console = Console()
    results: list[Measured] = []
    with Progress(console=console) as progress:
        task = progress.add_task("Training a classifier", total=None)
        model, x, names = train_classifier()
        with torch.no_grad():
            target = model(x).argmax(1)
        progress.update(task, total=_PERMUTATIONS // 50, description="Long reference (permutations)")
        shapley = long_reference(model, x, target, lambda: progress.advance(task))
        integral = IntegratedGradients(model).attribute(x, target=target, n_steps=2000, internal_batch_size=4000)
        defaults, cases = _default_calls(Counted(model)), _methods(model, x, target)  # type: ignore[arg-type]
        task = progress.add_task("Explaining 16 rows", total=len(defaults) + len(cases))
        explained = {}

        def measured(method: str, explain: Callable[[], Tensor], evaluations: int = 0) -> tuple[Measured, Tensor]:
            seconds, values = _timed(explain)
            right = integral if "Integrated" in method else shapley
            progress.advance(task)
            return Measured(method, evaluations, seconds / len(x), float(attribution_error(values, right))), values

        swaps = []
        for method, attribute in defaults:
            counted = attribute.__self__.forward_func  # type: ignore[attr-defined]
            counted.evaluations = 0
            found, _ = measured(method, lambda attribute=attribute: attribute(x, target=target))  # type: ignore[misc]
            swaps.append(replace(found, evaluations=round(counted.evaluations / len(x))))
        for method, evaluations, explain in cases:
            found, explained[method, evaluations] = measured(method, explain, evaluations)
            results.append(found)
    console.print(_table("Default calls: what changes when an import is changed", swaps, sections=2))
    console.print(_table("At every budget", results))
    _figures(results, explained, shapley, names, folder, console)
    return results


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
    table = Table(
        title=f"{title}\n{_ROWS} held-out rows of breast-cancer data, 30 features, probability of the predicted class"
    )
    table.add_column("method", no_wrap=True)
    for column in ("evaluations per row", "seconds per row", "error (relative, squared)"):
        table.add_column(column, justify="right")
    for number, result in enumerate(results):
        last = number + 1 == len(results) or results[number + 1].method != result.method
        ends = (number + 1) % sections == 0 if sections else last
        table.add_row(
            result.method, str(result.evaluations), f"{result.seconds:.4f}", f"{result.error:.5f}", end_section=ends
        )
    return table


def _figures(
    results: Sequence[Measured],
    explained: dict[tuple[str, int], Tensor],
    reference: Tensor,
    names: list[str],
    folder: Path,
    console: Console,
) -> None:
    try:
        from captum_meta.visualization import bars, error_against_cost
    except ImportError:
        console.print("No figures: install matplotlib with `pip install 'captum-meta[plots]'`.")
        return
    folder.mkdir(parents=True, exist_ok=True)
    shap = [result for result in results if "Kernel" in result.method]
    curves = {m: [(r.evaluations, r.error) for r in shap if r.method == m] for m in dict.fromkeys(r.method for r in shap)}
    row = {
        "long reference": reference[0],
        "MetaKernelShap, 129 evaluations": explained["MetaKernelShap", 129][0],
        "Captum KernelShap, 129 evaluations": explained["Captum KernelShap", 129][0],
    }
    figures = {
        "error_against_cost.png": error_against_cost(curves, "Shapley values of a breast-cancer classifier"),
        "attributions_of_one_row.png": bars(row, names),
    }
    for file, figure in figures.items():
        figure.savefig(folder / file, dpi=150)
        console.print(f"Figure: {folder / file}")


def main(arguments: Sequence[str]) -> None:
    """Explain a classifier with the shipped explainers and with Captum's methods, and compare them."""
    parser = ArgumentParser(prog="captum-meta demo", description=main.__doc__)
    parser.add_argument(
        "--folder", type=Path, default=Path("captum_meta_demo"), help="where the figures go; ./captum_meta_demo by default"
    )
    run(parser.parse_args(arguments).folder)
