"""Which method is best for a model of the user's own: error against cost, metrics and seconds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from time import perf_counter
from typing import Any, Literal

import torch
from rich.progress import Progress
from torch import Tensor

from captum_meta import functional
from captum_meta._model import Counted
from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.benchmark.journal import append_line
from captum_meta.benchmark.methods import (
    ADAPTED,
    BORDER_MEAN,
    GRADIENT_MEAN,
    METHODS,
    PATH_ADAPTED,
    Method,
    explain_path,
    explain_shapley,
    installed,
    support_arguments,
)
from captum_meta.benchmark.own_model_journal import header_of, taken_up
from captum_meta.benchmark.problem import Problem
from captum_meta.benchmark.references import Reference, exact_shapley, long_path, sampled_shapley
from captum_meta.benchmark.report import Measurement, ModelBenchmark
from captum_meta.evidence import Game

_STEPS = (3, 5, 10, 20, 50)
_FEW, _FEW_MULTIPLES, _MANY_MULTIPLES = 64, (0, 2, 4, 8, 16), (0, 0.25, 1, 4)
_PERTURBATIONS = 50
_PAIRWISE = "shapiq kADD-SHAP"


def benchmark_model(
    forward_func: Callable[..., Any],
    inputs: Tensor | tuple[Tensor, ...],
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensor | tuple[Tensor, ...] | None = None,
    *,
    kind: Literal["shapley", "path"] = "shapley",
    budgets: Sequence[int] | None = None,
    methods: Sequence[str] | None = None,
    support: Mapping[str, Any] | None = None,
    reference_pairs: int = 1000,
    seed: int = 0,
    output: str | Path | None = None,
    show_progress: bool = True,
) -> ModelBenchmark:
    """Compare our methods with those of Captum, shapiq and shap on rows of your model, at equal cost.

    Every method is compared with a long reference that is none of ours: for Shapley values exact where all coalitions
    cost no more than the permutations, else means over antithetic permutations with their standard error; for path
    integrals Integrated Gradients with 2,000 points. Methods whose library is not installed are left out.

    Args:
        forward_func, inputs, baselines, target, additional_forward_args, feature_mask: as for Captum's ``attribute``. The
            model may be a black box. 16 to 64 rows tell methods apart; the reference is what takes long.
        kind: Shapley values, or path integrals (which need a gradient).
        budgets: model evaluations per row, a gradient counted as 3. By default some multiples of the number of players.
        methods: names of the methods to compare; by default all.
        support: arguments of ``adapt`` for rows to adapt to, which are none of ``inputs``, such as
            ``{"inputs": ..., "baselines": ..., "target": ...}``; adds the shipped default learner adapted to them.
        reference_pairs: antithetic pairs of permutations of the reference.
        seed: of the methods that sample.
        output: a file of JSON lines that keeps all results; a stopped run is taken up where it stopped.
        show_progress: show progress bars.

    Returns:
        The errors, costs, seconds and metrics of all methods: as a table, JSON, CSV, a figure, and a recommendation.

    Raises:
        ValueError: if there is no such kind or method, the model gives more than one number per row, or ``output`` holds
            results of another model or other rows.
        RuntimeError: if path integrals are asked of a model without a gradient.

    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> found = benchmark_model(model, torch.randn(4, 3), methods=["Captum KernelShap"], show_progress=False)
    >>> found.reference.method
    'exact, from all 8 coalitions'
    """
    if kind not in METHODS:
        raise ValueError(f"kind is {kind!r}: pass one of {', '.join(map(repr, METHODS))}.")
    model = Counted(forward_func)
    arguments = {
        "inputs": inputs,
        "baselines": baselines,
        "target": target,
        "additional_forward_args": additional_forward_args,
        "feature_mask": feature_mask,
    }
    given = {key: value for key, value in arguments.items() if value is not None}
    problem = _with_gradient(Problem(model=model, arguments=given, support=support, seed=seed))
    chosen = _methods(kind, problem, methods)
    plan = _plan(kind, problem, chosen, budgets)
    journal = Path(output) if output is not None else None
    with Progress(disable=not show_progress) as progress:
        reference, done = taken_up(journal, problem, kind)
        if reference is None:
            reference = _reference(problem, kind, reference_pairs, progress)
            if journal is not None:
                append_line(journal, header_of(problem, kind, reference))
        bar = progress.add_task("Comparing methods", total=len(plan))
        for name, budget in plan:
            if (name, budget) not in done:
                measured = _measure(kind, problem, name, chosen[name], budget, reference, model)
                if measured is not None:
                    done[name, budget] = measured
                    if journal is not None:
                        append_line(journal, asdict(measured))
            progress.advance(bar)
    found = tuple(done[key] for key in plan if key in done)
    return ModelBenchmark(kind, problem.n_players, reference, found)


def _with_gradient(problem: Problem) -> Problem:
    """Whether the model can be differentiated, and gives one number per row."""
    game = Game(problem.model, **problem.arguments)
    ends = game.at(torch.ones(1))
    if game.n_rows != game.n_examples or ends.shape[-1] != 1:
        raise ValueError(
            f"The model must give one number per row, it gives {tuple(game.output_shape)} outputs for each of "
            f"{game.n_rows} rows: pass target= to select one, or return one entry for each example."
        )
    if game.together and game.n_examples > 1:
        raise ValueError(
            "forward_func does not answer for each row alone, so methods that explain single rows cannot be compared on it: "
            "pass one row, or a function whose rows do not act on each other."
        )
    first = game.take(torch.zeros(1, dtype=torch.long, device=game.device))
    return replace(problem, has_gradient=first.effects(torch.ones(1)) is not None)


def _methods(kind: str, problem: Problem, names: Sequence[str] | None) -> dict[str, Method]:
    adapted = ADAPTED if kind == "shapley" else PATH_ADAPTED
    table = {name: method for name, method in METHODS[kind].items() if name != adapted and "one more" not in name}
    if problem.support is not None:
        front_end, name = adapted.split(",")[0], f"{adapted.split(',')[0]}, adapted"
        table = {f"{front_end}, zero-shot": table.pop(f"{front_end}, zero-shot"), name: _Adapted(kind), **table}
    unknown = [name for name in names or () if name not in table]
    if unknown:
        raise ValueError(f"There are no methods {unknown} here: pass some of {list(table)}.")
    return {name: method for name, method in table.items() if (name in names if names else installed(name))}


class _Adapted:
    """The shipped default learner, adapted to the support rows once, when it is first asked."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self.attr: MetaKernelShap | MetaIntegratedGradients | None = None
        self.evaluations = 0

    def prepare(self, problem: Problem, budget: int, model: Counted) -> int:
        """Adapt, and measure on the support rows what ``budget`` measures; the evaluations that took in all."""
        model.evaluations = 0
        if self.attr is None:
            self.attr = (MetaKernelShap if self.kind == "shapley" else MetaIntegratedGradients)(problem.model)
            self.attr.adapt(**support_arguments(problem, self.kind))
            self.evaluations, model.evaluations = model.evaluations, 0
        self(problem, budget)
        first, model.evaluations = model.evaluations, 0
        self(problem, budget)
        return self.evaluations + first - model.evaluations

    def __call__(self, problem: Problem, budget: int) -> Tensor:
        if isinstance(self.attr, MetaKernelShap):
            return explain_shapley(self.attr, problem, budget)
        assert self.attr is not None
        return explain_path(self.attr, problem, budget)


def _plan(
    kind: str, problem: Problem, methods: Mapping[str, Method], budgets: Sequence[int] | None
) -> list[tuple[str, int]]:
    """Each method with the budgets that it can be given."""
    if budgets is None:
        multiples = _FEW_MULTIPLES if problem.n_players <= _FEW else _MANY_MULTIPLES
        shapley = [problem.base_cost + int(multiple * problem.n_players) for multiple in multiples]
        budgets = [3 * steps + 3 for steps in _STEPS] if kind == "path" else shapley
    fixed = {GRADIENT_MEAN: problem.base_cost, BORDER_MEAN: problem.base_cost + 2 * problem.n_players}
    plan: list[tuple[str, int]] = []
    for name in methods:
        if name in fixed:
            plan += [(name, fixed[name])] if problem.has_gradient or name != GRADIENT_MEAN else []
        elif name != _PAIRWISE or problem.n_players <= _FEW:
            plan += [(name, budget) for budget in sorted(set(budgets)) if budget >= _least(kind, name, problem)]
    return plan


def _least(kind: str, name: str, problem: Problem) -> int:
    """Fewest evaluations per row with which a method explains all players."""
    if kind == "path":
        return 6
    if name.startswith("Meta"):
        return problem.base_cost + (0 if problem.has_gradient else 1)
    return (1 if name.startswith("Captum") else 2) * problem.n_players + 2


def _reference(problem: Problem, kind: str, pairs: int, progress: Progress) -> Reference:
    game = problem.game()
    n_rows, n_players = game.n_examples, problem.n_players
    if kind == "path":
        bar = progress.add_task("Long reference", total=40)
        return long_path(game, lambda: progress.advance(bar))
    if n_players < 60 and 2**n_players <= 2 * pairs * n_players:
        bar = progress.add_task("Exact reference", total=n_rows)
        return exact_shapley(game, lambda: progress.advance(bar))
    bar = progress.add_task("Long reference", total=-(-pairs // 100))
    return sampled_shapley(game, pairs, problem.seed + 1, lambda: progress.advance(bar))


def _measure(
    kind: str, problem: Problem, name: str, method: Method, budget: int, reference: Reference, model: Counted
) -> Measurement | None:
    """One method at one budget; a peer that fails is left out with a warning."""
    spent = (budget - 3) // 3 if kind == "path" else budget
    n_rows = len(reference.values)
    try:
        support = method.prepare(problem, spent, model) if isinstance(method, _Adapted) else 0
        model.evaluations = 0
        start = perf_counter()
        values = method(problem, spent)
        seconds = (perf_counter() - start) / n_rows
        evaluations = model.evaluations / n_rows
    except Exception as error:
        if name.startswith("Meta"):
            raise
        warnings.warn(f"{name} failed at {budget} evaluations per row and is left out: {error!r}", stacklevel=3)
        return None
    return Measurement(
        method=name,
        budget=budget,
        evaluations=evaluations,
        squared_errors=(values.double() - reference.values.double()).square().sum(1).tolist(),
        squared_references=reference.values.double().square().sum(1).tolist(),
        seconds=seconds,
        metrics=_metrics(problem, values),
        support_evaluations=support,
    )


def _metrics(problem: Problem, values: Tensor) -> dict[str, float]:
    arguments = dict(problem.arguments)
    parts = problem.game().players.of_elements(values)
    attributions = parts if isinstance(arguments["inputs"], tuple) else parts[0]
    found = {
        "infidelity": functional.infidelity(
            problem.model, attributions, **arguments, n_perturb_samples=_PERTURBATIONS, seed=problem.seed
        ),
        "deletion_auc": functional.deletion_auc(problem.model, attributions, **arguments),
        "insertion_auc": functional.insertion_auc(problem.model, attributions, **arguments),
    }
    return {name: float(value) for name, value in found.items()}
