"""`captum-meta benchmark interactions`: pairs of players and main effects (k-SII), at equal numbers of evaluations.

A budget of c M counts coalitions beside three gradients; methods that take none have nine coalitions more,
with the empty and the full one among them. Errors are against all coalitions, over four rows of each model.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from math import exp, log

import torch
from rich.console import Console
from torch import Tensor

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark import modern_peers
from captum_meta.benchmark.background_models import background_problems
from captum_meta.benchmark.heldout import load_held_out, quick_names
from captum_meta.benchmark.peers import shapiq
from captum_meta.benchmark.problem import Problem, some_rows
from captum_meta.benchmark.tables import table_of
from captum_meta.estimators import all_coalitions, interactions
from captum_meta.estimators.interactions import Index
from captum_meta.functional import attribution_error

_BUDGETS, _ROWS, _MOST_PLAYERS = (4, 8, 16, 64), 4, 16
_INDEX: Index = "k-SII"
Method = Callable[[Problem, int], Tensor]


@dataclass(frozen=True)
class InteractionProblem:
    """A problem by its name, and the exact interactions of its rows, ``(4, M, M)``."""

    name: str
    problem: Problem
    values: Tensor


def ours(problem: Problem, budget: int) -> Tensor:
    """MetaKernelShap."""
    attr = MetaKernelShap(problem.model, learner="zero-shot")
    return attr.interactions(**problem.arguments, n_samples=budget, index=_INDEX, seed=problem.seed)


def _pairs(approximate: Callable[..., Tensor], name: str, **arguments: object) -> Method:
    """An approximator of shapiq, with as many evaluations as ours."""

    def method(problem: Problem, budget: int) -> Tensor:
        first, second = torch.combinations(torch.arange(problem.n_players), with_replacement=True).T
        groups = [sorted({i, j}) for i, j in zip(first.tolist(), second.tolist(), strict=True)]
        order = {"groups": groups, "index": _INDEX, "max_order": 2}
        values = approximate(problem, budget + problem.base_cost, name, **order, **arguments)
        found = values.new_zeros(len(values), problem.n_players, problem.n_players)
        found[:, first, second] = found[:, second, first] = values
        return found

    return method


PEERS: dict[str, Method] = {
    "KernelSHAPIQ": _pairs(shapiq, "KernelSHAPIQ", pairing_trick=True),
    "SVARMIQ": _pairs(shapiq, "SVARMIQ", pairing_trick=True),
    "PermutationSamplingSII": _pairs(shapiq, "PermutationSamplingSII"),
    "ProxySHAP": _pairs(modern_peers.approximated, "ProxySHAP"),
}


def with_truth(name: str, problem: Problem) -> InteractionProblem:
    """Exact interactions from all coalitions."""
    game = problem.game()
    everything = all_coalitions(game.players.count).expand(game.n_rows, -1, -1)
    return InteractionProblem(name, problem, interactions(game.values(everything).squeeze(-1).double(), _INDEX))


def synthetic_problems() -> Iterator[InteractionProblem]:
    """Models trained on synthetic tables, with the first of the background rows as baseline."""
    for name, make in background_problems().items():
        made = make()
        arguments = {"inputs": made.inputs[:_ROWS], "baselines": made.background[:1]}
        yield with_truth(
            name.rsplit(",", 1)[0], Problem(model=made.model, arguments=arguments, has_gradient="trees" not in name)
        )


def held_out_problems() -> Iterator[InteractionProblem]:
    """Those of the quick comparison of Shapley values that have at most 16 players."""
    for name in quick_names():
        held_out = load_held_out(name)
        if held_out.n_players <= _MOST_PLAYERS:
            arguments = some_rows(held_out.arguments, slice(0, _ROWS))
            yield with_truth(name, Problem(model=held_out.model, arguments=arguments, has_gradient=held_out.has_gradient))


def compare(given: InteractionProblem, methods: dict[str, Method]) -> dict[int, dict[str, float]]:
    """Errors of each method by multiple of M, for budgets that do not cover all coalitions."""
    n_players, found = given.problem.n_players, {}
    for multiple in _BUDGETS:
        if multiple * n_players < 2**n_players - 2:
            found[multiple] = {
                name: float(
                    attribution_error(
                        method(given.problem, multiple * n_players).double().flatten(1), given.values.flatten(1)
                    )
                )
                for name, method in methods.items()
            }
    return found


def main(arguments: Sequence[str]) -> None:
    """Compare interactions of pairs with shapiq's estimators at 4M, 8M, 16M and 64M evaluations.

    Where CAPTUM_META_SHAPIQ names a Python with shapiq 1.8, its ProxySHAP is one of them.
    """
    parser = ArgumentParser(prog="captum-meta benchmark interactions", description=main.__doc__)
    parser.add_argument("--held-out", action="store_true", help="on held-out models, not on synthetic ones")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    peers = {name: method for name, method in PEERS.items() if name != "ProxySHAP" or modern_peers.available()}
    ratios: dict[int, list[float]] = {multiple: [] for multiple in _BUDGETS}
    columns = ("model", "coalitions", "MetaKernelShap", *peers, "ours / best peer")
    table = table_of(f"{_INDEX} of order 2: error against all coalitions", columns, ("model",))
    for given in held_out_problems() if options.held_out else synthetic_problems():
        for multiple, found in compare(given, {"MetaKernelShap": ours, **peers}).items():
            ratio = found["MetaKernelShap"] / min(found[name] for name in peers)
            ratios[multiple].append(ratio)
            table.add_row(given.name, f"{multiple}M", *(f"{error:.5f}" for error in found.values()), f"{ratio:.3f}")
    for multiple, some in ratios.items():
        if some:
            mean = exp(sum(map(log, some)) / len(some))
            table.add_row("geometric mean; worst", f"{multiple}M", *[""] * (1 + len(peers)), f"{mean:.3f}; {max(some):.3f}")
    Console(width=170).print(table)
