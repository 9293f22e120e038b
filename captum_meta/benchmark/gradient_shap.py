"""`captum-meta benchmark gradient-shap`: as many gradients as Captum's GradientShap, compared with very many."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence

import torch
from captum.attr import GradientShap
from rich.console import Console
from rich.progress import track
from torch import Tensor

from captum_meta.attr import MetaGradientShap
from captum_meta.benchmark.heldout import HeldOutProblem, held_out_names, load_held_out
from captum_meta.benchmark.peers import seeded
from captum_meta.benchmark.tables import table_of
from captum_meta.functional import attribution_error

_DRAWS, _LONG, _RUNS = 5, 500, 4
_FAMILIES = ("breast-cancer", "wine", "adult", "diabetes", "bike", "california", "digits-patches", "digits-rows")


def problem_names() -> list[str]:
    """One problem for each model: those with gradients and the zero baseline, whose baselines are not used."""
    names = [name for name in held_out_names() if name.endswith("/zero") and "/trees/" not in name]
    return [name for name in names if name.split("/")[0] in _FAMILIES]


def _captum(problem: HeldOutProblem, draws: int, seed: int) -> Tensor:
    """Captum draws from the global streams of NumPy and torch."""
    inputs, target = problem.arguments["inputs"], problem.arguments["target"]
    with seeded(seed):
        return GradientShap(problem.model).attribute(inputs, _baselines(problem), n_samples=draws, target=target)


def _ours(problem: HeldOutProblem, draws: int, seed: int) -> Tensor:
    inputs, target = problem.arguments["inputs"], problem.arguments["target"]
    return MetaGradientShap(problem.model).attribute(inputs, _baselines(problem), draws, target=target, seed=seed)


def _baselines(problem: HeldOutProblem) -> Tensor:
    assert problem.support is not None
    baselines: Tensor = problem.support["inputs"]
    return baselines


def errors(name: str) -> tuple[float, float]:
    """Errors of ours and of Captum's at five draws against 2,000 draws of Captum's, each a mean over four runs."""
    problem = load_held_out(name)
    right = torch.stack([_captum(problem, _LONG, seed) for seed in range(4)]).mean(0)
    pair = []
    for method in (_ours, _captum):
        found = [attribution_error(method(problem, _DRAWS, 100 + run), right) for run in range(_RUNS)]
        pair.append(float(torch.stack(found).mean()))
    return pair[0], pair[1]


def main(arguments: Sequence[str]) -> None:
    """GradientShap at 5 draws on the held-out models, against 2,000 draws; baselines are rows of the training data."""
    ArgumentParser(prog="captum-meta benchmark gradient-shap", description=main.__doc__).parse_args(arguments)
    pairs = {name: errors(name) for name in track(problem_names(), description="GradientShap")}
    columns = ("models", "MetaGradientShap", "Captum GradientShap", "ratio, median over models")
    table = table_of("error at 5 draws against 2,000: median / mean over the models", columns)
    groups = {
        "tabular": [name for name in pairs if not name.startswith("digits")],
        "image patches": [name for name in pairs if name.startswith("digits-patches")],
        "recurrent": [name for name in pairs if name.startswith("digits-rows")],
    }
    for label, names in groups.items():
        both = torch.tensor([pairs[name] for name in names])
        cells = [f"{column.median():.4f} / {column.mean():.4f}" for column in both.T]
        table.add_row(f"{label} ({len(names)})", *cells, f"{(both[:, 0] / both[:, 1]).median():.3f}")
    Console().print(table)
