"""`captum-meta benchmark real`: models that others built, explained by ours and by Captum at equal cost."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from captum_meta.benchmark.methods import PATH, PATH_ZERO_SHOT, SHAPLEY, ZERO_SHOT, Method
from captum_meta.benchmark.options import add_choices
from captum_meta.benchmark.problem import Problem, player_sums
from captum_meta.benchmark.real_models import REAL
from captum_meta.benchmark.references import exact_shapley, long_path, sampled_shapley
from captum_meta.benchmark.tables import table_of
from captum_meta.evidence import Game
from captum_meta.functional import attribution_error

_MULTIPLES, _STEPS = (2, 8), (5, 10)
_EXACT, _PAIRS = 14, 1500
_SHAPLEY = {
    "ours": ZERO_SHOT,
    "Captum KernelShap": "Captum KernelShap",
    "Captum ShapleyValueSampling": "Captum ShapleyValueSampling",
}
_PATH = {"ours": PATH_ZERO_SHOT, "Captum, one more, completed": "Captum, one more, completed"}


def main(arguments: Sequence[str]) -> None:
    """Compare methods at equal cost on models that others built. Nothing is adapted to them."""
    parser = ArgumentParser(prog="captum-meta benchmark real", description=main.__doc__)
    add_choices(parser, "--models", REAL, "MODEL")
    names = parser.parse_args(arguments).models
    torch.set_num_threads(1)
    console = Console(width=150)
    left_out = [name for name in names if not REAL[name].installed]
    if left_out:
        packages = sorted({REAL[name].package for name in left_out})
        console.print(f"Left out: {', '.join(left_out)}. They need the packages {', '.join(packages)}.")
    shapley = _table("Shapley values: relative squared error", _SHAPLEY, [f"{multiple}M" for multiple in _MULTIPLES])
    path = _table("Integrated Gradients: relative squared error", _PATH, [f"{steps} gradients" for steps in _STEPS])
    for name in (name for name in names if name not in left_out):
        problem = REAL[name].make()
        costs = [multiple * problem.n_players + problem.base_cost for multiple in _MULTIPLES]
        shapley.add_row(
            name, str(problem.n_players), *_errors(problem, _shapley_reference(problem), SHAPLEY, _SHAPLEY, costs)
        )
        if problem.has_gradient:
            right = _path_reference(problem)
            path.add_row(name, str(right.shape[1]), *_errors(problem, right, PATH, _PATH, _STEPS))
        console.print(name, "done")
    console.print(shapley, path)


def _table(title: str, methods: Mapping[str, str], budgets: Sequence[str]) -> Table:
    columns = ("model", "players", *(f"{method}, {budget}" for budget in budgets for method in methods))
    return table_of(title, columns, ("model",))


def _errors(
    problem: Problem, right: Tensor, methods: Mapping[str, Method], names: Mapping[str, str], budgets: Sequence[int]
) -> list[str]:
    calls: list[Callable[[], Tensor]] = [
        partial(methods[method], problem, budget) for budget in budgets for method in names.values()
    ]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [f"{float(attribution_error(call().double(), right.double())):.4f}" for call in calls]


def _shapley_reference(problem: Problem) -> Tensor:
    """Exact up to 14 players, else by permutations."""
    exact = problem.n_players <= _EXACT
    return (exact_shapley(problem.game()) if exact else sampled_shapley(problem.game(), _PAIRS)).values


def _path_reference(problem: Problem) -> Tensor:
    """Of elements, summed over each player's."""
    game = Game(problem.model, **problem.path_arguments)
    game.evaluation.together = False
    return player_sums(problem, game.players.of_elements(long_path(game).values))
