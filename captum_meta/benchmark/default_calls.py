"""`captum-meta benchmark defaults`: default calls of our front ends beside those of the Captum methods they stand in for."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

import torch
from captum.attr import GradientShap, IntegratedGradients, KernelShap, ShapleyValueSampling
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from captum_meta._model import Counted
from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaKernelShap, MetaShapleyValueSampling
from captum_meta.benchmark.default_nets import NETS, Trained, trained
from captum_meta.benchmark.options import add_choices
from captum_meta.benchmark.peers import seeded
from captum_meta.benchmark.references import exact_shapley
from captum_meta.benchmark.tables import table_of
from captum_meta.benchmark.timing import in_turn
from captum_meta.evidence import Game
from captum_meta.functional import attribution_error

_STEPS, _DRAWS, _AT_ONCE = 3000, 2000, 4096
_TIMED, _RUNS = 5, 4
_EQUAL = 1e-6
"""Relative squared errors below count as equal."""


@dataclass(frozen=True)
class Default:
    """A front end, its Captum namesake, and how their answers are judged.

    Attributes:
        ours, theirs: classes of the two.
        arguments: of both calls.
        reference: exact attributions, or as good as that, in the shape of the inputs.
        sampled: whether the answers depend on random numbers, so that errors are means over runs.
    """

    ours: Callable[..., Any]
    theirs: Callable[..., Any]
    arguments: Callable[[Trained], dict[str, Any]]
    reference: Callable[[Trained], Tensor]
    sampled: bool


@dataclass(frozen=True)
class Outcome:
    """Of one net and front end: errors, evaluations per row with a gradient counted as three, and seconds, ours first."""

    name: str
    method: str
    errors: tuple[float, float]
    evaluations: tuple[float, float]
    seconds: tuple[float, float]

    @property
    def ratio(self) -> float:
        """Our error over Captum's."""
        ours, theirs = (max(error, _EQUAL) for error in self.errors)
        return ours / theirs


def _paths(problem: Trained) -> dict[str, Any]:
    return {"inputs": problem.inputs, "target": problem.target}


def _players(problem: Trained) -> dict[str, Any]:
    return {**_paths(problem), "feature_mask": problem.players}


def _draws(problem: Trained) -> dict[str, Any]:
    return {**_paths(problem), "baselines": problem.inputs.flip(0)}


def _integral(problem: Trained) -> Tensor:
    method = IntegratedGradients(problem.model)
    options = {"n_steps": _STEPS, "method": "riemann_middle", "internal_batch_size": _AT_ONCE}
    values: Tensor = method.attribute(**_paths(problem), **options)
    return values


def _enumeration(problem: Trained) -> Tensor:
    game = Game(problem.model, problem.inputs, None, problem.target, None, problem.players)
    (values,) = game.players.of_elements(exact_shapley(game).values)
    return values


def _expectation(problem: Trained) -> Tensor:
    values = [MetaGradientShap(problem.model).attribute(**_draws(problem), n_samples=_DRAWS, seed=seed) for seed in (11, 12)]
    return torch.stack(values).mean(0)


DEFAULTS = {
    "IntegratedGradients": Default(MetaIntegratedGradients, IntegratedGradients, _paths, _integral, False),
    "KernelShap": Default(MetaKernelShap, KernelShap, _players, _enumeration, True),
    "ShapleyValueSampling": Default(MetaShapleyValueSampling, ShapleyValueSampling, _players, _enumeration, True),
    "GradientShap": Default(MetaGradientShap, GradientShap, _draws, _expectation, True),
}


def compare_defaults(name: str, probabilities: bool, method: str, timed: int = _TIMED) -> Outcome:
    """Default calls of a front end and of its namesake on one of the :data:`~captum_meta.benchmark.default_nets.NETS`."""
    problem, default = trained(name, probabilities), DEFAULTS[method]
    model = Counted(problem.model)
    arguments, right = default.arguments(problem), default.reference(problem)
    errors, evaluations = [], []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        calls = {"ours": default.ours(model), "theirs": default.theirs(model)}
        runs = range(_RUNS if default.sampled else 1)
        for call in calls.values():
            model.evaluations, found = 0, []
            for run in runs:
                with seeded(run):
                    found.append(attribution_error(_answer(call, arguments, run), right))
            evaluations.append(model.evaluations / len(runs) / len(right))
            errors.append(float(torch.stack(found).mean()))
        answers = {which: partial(_answer, call, arguments, 0) for which, call in calls.items()}
        seconds = [median(taken) for taken in in_turn(answers, timed).values()]
    label = f"{name}, {'probabilities' if probabilities else 'logits'}"
    return Outcome(label, method, (errors[0], errors[1]), (evaluations[0], evaluations[1]), (seconds[0], seconds[1]))


def _answer(call: Any, arguments: dict[str, Any], seed: int) -> Tensor:
    seeds = {"seed": seed} if type(call).__name__.startswith("Meta") and not isinstance(call, IntegratedGradients) else {}
    values: Tensor = call.attribute(**arguments, **seeds)
    return values


def main(arguments: Sequence[str]) -> None:
    """Compare default calls of our methods and Captum's: errors, evaluations and seconds on six small nets."""
    parser = ArgumentParser(prog="captum-meta benchmark defaults", description=main.__doc__)
    add_choices(parser, "--methods", DEFAULTS, "METHOD")
    add_choices(parser, "--nets", NETS, "NET")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=150)
    for method in options.methods:
        cases = [(name, probabilities) for name in options.nets for probabilities in (False, True)]
        outcomes = [compare_defaults(*case, method) for case in track(cases, description=method)]
        console.print(_table(method, outcomes))


def _table(method: str, outcomes: Sequence[Outcome]) -> Table:
    columns = ("net", "error", "ratio", "evaluations per row", "milliseconds", "ratio of times")
    table = table_of(f"{method}, default calls of 16 rows: ours / Captum's", columns, ("net",))
    for outcome in outcomes:
        ours, theirs = outcome.seconds
        table.add_row(
            outcome.name,
            " / ".join(f"{error:.2g}" for error in outcome.errors),
            f"{outcome.ratio:.2f}",
            " / ".join(f"{count:.0f}" for count in outcome.evaluations),
            f"{1e3 * ours:.1f} / {1e3 * theirs:.1f}",
            f"{ours / theirs:.2f}",
        )
    mean = torch.tensor([outcome.evaluations for outcome in outcomes]).mean(0).tolist()
    table.add_section()
    table.add_row("mean", "", "", " / ".join(f"{count:.0f}" for count in mean), "", "")
    return table
