"""The cases of `captum-meta benchmark speed`: our calls and, for each, the call it is compared with."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from math import log
from typing import Any

import torch
from captum.attr import IntegratedGradients, KernelShap
from torch import Tensor

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.benchmark.peers import seeded
from captum_meta.benchmark.speed_nets import PATHS, Timed, path_case, perceptron
from captum_meta.benchmark.timing import Call, Comparison, Timing, timed
from captum_meta.estimators import plan_coalitions
from captum_meta.functional import attribution_error

STEPS, ERROR = 10, 1e-3
_REFERENCE_STEPS, _AT_ONCE = 500, 16
_LADDER = (2, 3, 4, 5, 7, 10, 14, 20, 28, 40, 50, 80, 120, 200)
_ROWS, _PLAYERS = 64, 30
_BUDGETS = (2 * _PLAYERS, 4 * _PLAYERS, 16 * _PLAYERS)


def path_calls(case: Timed, ours: int, theirs: int) -> tuple[Call, Call]:
    """Integrated Gradients of so many steps, by our front end and by Captum's."""
    meta, captum = MetaIntegratedGradients(case.model), IntegratedGradients(case.model)
    return (
        lambda: meta.attribute(case.inputs, target=case.target, n_steps=ours),
        lambda: captum.attribute(case.inputs, target=case.target, n_steps=theirs),
    )


def paths(names: tuple[str, ...] = PATHS) -> Iterator[Comparison]:
    """Integrated Gradients, ours and Captum's, from equal numbers of gradients."""
    for name in names:
        yield Comparison(f"{name}, {STEPS} steps", 3.0 if name == "MLP" else 1.5, *path_calls(path_case(name), STEPS, STEPS))


def paths_to_an_error(names: tuple[str, ...] = PATHS) -> Iterator[Comparison]:
    """The same, from as many gradients as each needs for a relative squared error of 1e-3."""
    for name in names:
        case = path_case(name)
        options: dict[str, Any] = {"target": case.target, "n_steps": _REFERENCE_STEPS, "internal_batch_size": _AT_ONCE}
        right = IntegratedGradients(case.model).attribute(case.inputs, **options, method="riemann_middle")
        ours, theirs = (_least_steps(case, which, right) for which in (0, 1))
        yield Comparison(f"{name}, error {ERROR:g}: {ours}, {theirs} steps", 1.0, *path_calls(case, ours, theirs))


def _least_steps(case: Timed, which: int, right: Tensor) -> int:
    """Steps that our (0) or Captum's (1) method needs."""
    errors = ((n, float(attribution_error(path_calls(case, n, n)[which](), right))) for n in _LADDER)
    return next((n for n, error in errors if error <= ERROR), _LADDER[-1])


def plainly(case: Timed, n_samples: int) -> Call:
    """Only the evaluations: three gradients and ``n_samples`` coalitions of each row."""
    keys, players = torch.arange(len(case.inputs)), torch.ones_like(case.inputs, dtype=torch.bool)
    members = plan_coalitions(players, n_samples, 0, keys)[0]
    at_once = max(1, 4096 // max(1, n_samples))

    def run() -> None:
        points = torch.cat([case.inputs * alpha for alpha in (1.0, 0.5, 0.0)]).requires_grad_()
        torch.autograd.grad(case.model(points)[:, case.target].sum(), points)
        with torch.no_grad():
            for rows, some in zip(case.inputs.split(at_once), members.split(at_once), strict=True):
                case.model((rows.unsqueeze(1) * some).flatten(0, 1))

    return run


def _kernel_shap(case: Timed, n_samples: int, **options: Any) -> Call:
    method = MetaKernelShap(case.model)
    return lambda: method.attribute(case.inputs, target=case.target, n_samples=n_samples, **options)


def _captum_kernel_shap(case: Timed, n_samples: int) -> None:
    with seeded(0):
        arguments = {"n_samples": n_samples, "perturbations_per_eval": n_samples}
        KernelShap(case.model).attribute(case.inputs, target=case.target, **arguments)


def shapley() -> Iterator[Comparison]:
    """MetaKernelShap beside the same gradients and coalitions done plainly."""
    case = perceptron(_PLAYERS, _ROWS)
    for n_samples, most in zip((0, *_BUDGETS, 2048), (4.0, 2.0, 4.0, 6.0, 12.0), strict=True):
        yield Comparison(f"{n_samples} coalitions", most, _kernel_shap(case, n_samples), plainly(case, n_samples))


def captum() -> Iterator[Comparison]:
    """MetaKernelShap beside Captum's KernelShap."""
    case = perceptron(_PLAYERS, _ROWS)
    for n_samples in _BUDGETS:
        theirs = partial(_captum_kernel_shap, case, n_samples)
        yield Comparison(f"{n_samples} coalitions", 0.1, _kernel_shap(case, n_samples), theirs)


def estimates() -> Iterator[Comparison]:
    """A call with an error estimate beside one without."""
    case = perceptron(_PLAYERS, _ROWS)
    for n_samples in _BUDGETS:
        ours = _kernel_shap(case, n_samples, return_error_estimate=True)
        yield Comparison(f"{n_samples} coalitions", 1.5, ours, _kernel_shap(case, n_samples))


def tolerance() -> Iterator[Comparison]:
    """Seconds of a call with ``tolerance=.01`` for 500 rows of 20 players."""
    case = perceptron(20, 500)
    method = MetaKernelShap(case.model)
    yield Comparison("500 rows of 20", 10.0, lambda: method.attribute(case.inputs, target=case.target, tolerance=0.01))


def adapt() -> Iterator[Comparison]:
    """Seconds of ``adapt``, with explanations at hand and without; then adapted calls beside zero-shot ones."""
    for n_rows, n_players, most in ((16, 30, 0.3), (64, 20, 0.8)):
        case, rows = perceptron(n_players, n_rows), perceptron(n_players, _ROWS)
        right = MetaKernelShap(case.model).attribute(case.inputs, target=0, n_samples=32 * n_players)
        for label, values in (("explained", right), ("to be explained", None)):
            ours = partial(_adapt, MetaKernelShap(case.model), case, values)
            yield Comparison(f"{n_rows} x {n_players}, {label}, s", most, ours)
        method = MetaKernelShap(case.model)
        _adapt(method, case, right)
        for n_samples in (0, 2 * n_players):
            ours = partial(method.attribute, rows.inputs, target=0, n_samples=n_samples)
            yield Comparison(f"{n_rows} x {n_players}, {n_samples} coalitions", 2.0, ours, _kernel_shap(rows, n_samples))


def _adapt(method: MetaKernelShap, case: Timed, attributions: Tensor | None) -> None:
    method.reset().adapt(case.inputs, target=case.target, attributions=attributions)
    method.attribute(case.inputs[:1], target=case.target)


_GROWTH = (
    ("rows, 64 to 512", (64, 30, 60), (512, 30, 60), 8, 1.05),
    ("players, 32 to 256", (64, 32, 64), (64, 256, 512), 8, 1.3),
    ("coalitions, 120 to 480", (64, 30, 120), (64, 30, 480), 4, 1.5),
)


def growth(runs: int) -> Iterator[Timing]:
    """Exponents of time in rows, players and coalitions, from a call and a larger one."""
    for name, small, large, times, most in _GROWTH:
        ours, theirs = (_kernel_shap(perceptron(m, n), s) for n, m, s in (large, small))
        found = timed(Comparison(name, most, ours, theirs), runs)
        yield Timing(name, found.ours, found.theirs, log(found.ratio) / log(times), most)


def imports(runs: int) -> Iterator[Timing]:
    """Seconds that importing captum_meta.attr takes beyond captum.attr, each the least of several processes."""
    ours, theirs = (min(_import_seconds(name) for _ in range(runs)) for name in ("captum_meta.attr", "captum.attr"))
    yield Timing("import captum_meta.attr", ours, theirs, ours - theirs, 0.2)


def _import_seconds(name: str) -> float:
    code = f"import time; start = time.process_time(); import {name}; print(time.process_time() - start)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def _in_turn(comparisons: Callable[[], Iterator[Comparison]]) -> Callable[[int], Iterator[Timing]]:
    def run(runs: int) -> Iterator[Timing]:
        return (timed(comparison, runs) for comparison in comparisons())

    run.__doc__ = comparisons.__doc__
    return run


SECTIONS: dict[str, Callable[[int], Iterator[Timing]]] = {
    "paths": _in_turn(paths),
    "paths-to-an-error": _in_turn(paths_to_an_error),
    "shapley": _in_turn(shapley),
    "captum": _in_turn(captum),
    "estimates": _in_turn(estimates),
    "tolerance": _in_turn(tolerance),
    "adapt": _in_turn(adapt),
    "growth": growth,
    "imports": imports,
}
