"""`captum-meta benchmark estimates`: how well error estimates rank rows, and whether rows keep their tolerance."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import track
from torch import Tensor

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.heldout import HeldOutProblem, held_out_names, load_held_out, reference
from captum_meta.benchmark.options import add_references
from captum_meta.benchmark.problem import player_values
from captum_meta.benchmark.tables import table_of
from captum_meta.functional import rank_correlation

_MULTIPLES = (2, 4, 8)
_TOLERANCES = (0.1, 0.01, 0.001)
_MAX_PLAYERS = 16


def problem_names() -> list[str]:
    """Problems with exact references and more than 10 players, so that 8M coalitions are not all there are."""
    names = [name for name in held_out_names() if name.split("/")[0] in ("wine", "adult", "bike", "digits-patches")]
    return [name for name in names if load_held_out(name).n_players <= _MAX_PLAYERS]


def _explain(problem: HeldOutProblem, n_samples: int | None, tolerance: float | None) -> tuple[Tensor, Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values, estimates = MetaKernelShap(problem.model, learner="zero-shot").attribute(
            **problem.arguments, n_samples=n_samples, tolerance=tolerance, return_error_estimate=True
        )
    return player_values(problem, values), estimates


def _row_errors(values: Tensor, right: Tensor) -> Tensor:
    return (values - right).square().sum(1) / right.square().sum(1)


def main(arguments: Sequence[str]) -> None:
    """Error estimates of MetaKernelShap on the held-out problems with exact references."""
    parser = ArgumentParser(prog="captum-meta benchmark estimates", description=main.__doc__)
    add_references(parser)
    folder = parser.parse_args(arguments).references or Path("runs/references")
    ranks: dict[int, list[Tensor]] = {multiple: [] for multiple in _MULTIPLES}
    claims: dict[float, list[Tensor]] = {tolerance: [] for tolerance in _TOLERANCES}
    for name in track(problem_names(), description="Error estimates"):
        problem = load_held_out(name)
        right = reference(problem, "shapley", folder)
        for multiple in _MULTIPLES:
            values, estimates = _explain(problem, multiple * problem.n_players, None)
            ranks[multiple].append(rank_correlation(estimates[None], _row_errors(values, right)[None]))
        for tolerance in _TOLERANCES:
            values, estimates = _explain(problem, None, tolerance)
            claims[tolerance].append(_row_errors(values, right)[estimates <= tolerance] <= tolerance)
    console = Console()
    title = f"Spearman correlation with the true error within a model; {len(ranks[2])} models, 12 rows each"
    table = table_of(title, ("coalitions", "mean", "median"))
    for multiple, found in ranks.items():
        all_ranks = torch.stack(found)
        table.add_row(f"{multiple}M", f"{all_ranks.mean():.2f}", f"{all_ranks.median():.2f}")
    console.print(table)
    table = table_of("rows that stop at a tolerance", ("tolerance", "rows that claim it", "of them within it"))
    for tolerance, kept in claims.items():
        rows = torch.cat(kept)
        table.add_row(f"{tolerance}", str(len(rows)), f"{rows.double().mean():.1%}")
    console.print(table)
