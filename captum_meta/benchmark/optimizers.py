"""`captum-meta benchmark optimizers`: the learned optimizer's steps against those of SGD and Adam, tuned by hand.

All move the same parameters of the same explainer, from the same start, along the gradient of the same support rows' loss.
The rates of SGD and Adam are searched on the synthetic tasks that the learned optimizer was trained on. Every iterate is
judged as it is, without the comparison with left-out rows of ``adapt``.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch import Tensor

from captum_meta.benchmark.adaptation import BUDGETS
from captum_meta.benchmark.explained_rows import query_rows, support_rows
from captum_meta.benchmark.heldout import held_out_names, load_held_out, quick_names
from captum_meta.benchmark.journal import append_line, read_lines
from captum_meta.benchmark.options import add_output, add_references
from captum_meta.benchmark.tables import table_of
from captum_meta.learners import LearnedOptimizer, load_learner
from captum_meta.learners._gradient_state import GradientState
from captum_meta.losses import relative_errors
from captum_meta.optim import SGD, Adam, Clipped, Tensors, UpdateRule, iterates
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import LEAVE_ONE_OUT, Explanations

ROWS = 16
HAND_STEPS = 20
"""For which the rates of SGD and Adam are tuned."""
STRETCH = 5
"""How many times its training horizon the learned optimizer runs."""
RATES = {
    "SGD": (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0),
    "Adam": (0.0002, 0.0005, 0.001, 0.002, 0.005, 0.01, 0.02),
}
LEARNED = "learned"
_DATA = ("wine", "diabetes", "bike", "california")
_TUNING = SyntheticTaskFamily("shapley", tasks_per_batch=8, rows=48, seed=11)
_BATCHES, _TASKS = 12, 4
_FLOOR, _DIVERGED = 0.0005, 1e4
_WORSE = 1.1


@dataclass(frozen=True)
class Tuned:
    """One rate on the training tasks.

    Attributes:
        optimizer, rate: ``"SGD"`` or ``"Adam"``.
        log_error: mean over tasks and budgets of the logarithm of the query error after the tuned number of steps.
    """

    optimizer: str
    rate: float
    log_error: float


@dataclass(frozen=True)
class Curve:
    """One optimizer on one held-out model.

    Attributes:
        problem, family: the problem and its family.
        budget: coalitions per row, ``"none"`` or ``"2M"``, beside three gradients.
        optimizer: ``"learned"``, ``"SGD"`` or ``"Adam"``.
        support, query: relative squared errors of the support and the query rows, at the start and after each step.
    """

    problem: str
    family: str
    budget: str
    optimizer: str
    support: list[float]
    query: list[float]


def rule(learner: LearnedOptimizer, optimizer: str, rate: float = 1.0) -> UpdateRule:
    """The learned rule; SGD, its gradient's length cut to 1 as for MAML; or Adam."""
    if optimizer == LEARNED:
        return learner.rule
    plain = Clipped(SGD(learner.names, 1, rate), 1.0) if optimizer == "SGD" else Adam(rate)
    return plain.requires_grad_(False)


def walk(learner: LearnedOptimizer, rule: UpdateRule, support: Explanations, steps: int) -> list[Tensors]:
    """Fast parameters ``(T, *shape)`` at the start and after each step."""
    start = learner.start(len(support.attributions))
    problem = replace(learner.problem(support, start), rule=rule, steps=steps)
    return [{n: v.detach() for n, v in fast.items()} for fast in iterates(problem, start, create_graph=False)]


def errors(learner: LearnedOptimizer, fast: Tensors, rows: Explanations) -> Tensor:
    """Relative squared error of each task's rows, ``(T,)``, if the explainer has these parameters."""
    state = GradientState(dict(fast), torch.ones(len(rows.attributions)))
    with torch.no_grad():
        return relative_errors(learner.predict(state, rows.evidence), rows.attributions, rows.variance)


def log_errors(found: Tensor) -> Tensor:
    """Logarithms; errors well under .0005 count alike, as in meta-training, and what diverged as ten thousand."""
    return torch.log(_FLOOR + found.nan_to_num(nan=_DIVERGED).clamp(max=_DIVERGED))


def with_budget(explanations: Explanations, budget: str) -> Explanations:
    """The evidence at a budget of ``"none"`` or ``"2M"`` coalitions."""
    evidence = explanations.evidence
    evidence = evidence.gradients_alone() if BUDGETS[budget] == 0 else evidence.without_coalitions()
    return replace(explanations, evidence=evidence)


def tune(learner: LearnedOptimizer, output: Path, batches: int = _BATCHES) -> dict[str, float]:
    """The best rate of each optimizer; what is in ``output`` already is kept."""
    known = [Tuned(**entry) for entry in read_lines(output) if "rate" in entry]
    missing = [
        (o, rate) for o, rates in RATES.items() for rate in rates if (o, rate) not in {(t.optimizer, t.rate) for t in known}
    ]
    tasks = [_TUNING[index][:_TASKS] for index in track(range(batches), "Making tasks") if missing]
    tasks = [some for some in tasks if bool(some.evidence.measured[..., :LEAVE_ONE_OUT].any())]
    for optimizer, rate in track(missing, description="Tuning SGD and Adam"):
        found = []
        for some in [with_budget(some, budget) for some in tasks for budget in BUDGETS]:
            end = walk(learner, rule(learner, optimizer, rate), some[:, :ROWS], HAND_STEPS)[-1]
            found.append(log_errors(errors(learner, end, some[:, ROWS:])))
        known.append(Tuned(optimizer, rate, float(torch.cat(found).mean())))
        append_line(output, asdict(known[-1]))
    best = {o: min((t for t in known if t.optimizer == o), key=lambda t: t.log_error) for o in RATES}
    return {optimizer: tuned.rate for optimizer, tuned in best.items()}


def run(
    learner: LearnedOptimizer, names: Sequence[str], rates: dict[str, float], output: Path, references: Path
) -> list[Curve]:
    """Every optimizer on every problem; results already in ``output`` (JSON lines) are kept."""
    done = [Curve(**entry) for entry in read_lines(output) if "problem" in entry]
    known = {(c.problem, c.budget, c.optimizer) for c in done}
    for name in track(names, description="Adapting"):
        for budget, coalitions in BUDGETS.items():
            wanted = [o for o in (LEARNED, *RATES) if (name, budget, o) not in known]
            if not wanted:
                continue
            problem = load_held_out(name)
            count = coalitions * problem.n_players
            support, query = support_rows(problem, count, references)[:ROWS], query_rows(problem, count, references)
            sets = [rows.map(lambda value: value.unsqueeze(0)) for rows in (support, query)]
            for optimizer in wanted:
                fast = walk(learner, rule(learner, optimizer, rates.get(optimizer, 1.0)), sets[0], STRETCH * learner.steps)
                found = [[float(errors(learner, each, rows)) for each in fast] for rows in sets]
                done.append(Curve(name, problem.family, budget, optimizer, *found))
                append_line(output, asdict(done[-1]))
    return [curve for curve in done if curve.problem in names]


def means(curves: Sequence[Curve], optimizer: str, of: str = "query") -> np.ndarray:
    """Mean log error over models, at the start and after each step."""
    found = [torch.tensor(getattr(curve, of)) for curve in curves if curve.optimizer == optimizer]
    return log_errors(torch.stack(found)).mean(0).numpy()


def table(curves: Sequence[Curve], budget: str, steps: Sequence[int]) -> Table:
    """Geometric mean and median of the errors against steps."""
    some = [curve for curve in curves if curve.budget == budget]
    count = len({curve.problem for curve in some})
    title = f"{count} held-out models, {ROWS} support rows, coalitions per row: {budget}; geometric mean / median"
    shown = table_of(title, ("rows", "optimizer", *map(str, steps)), ("rows", "optimizer"))
    for of in ("support", "query"):
        for optimizer in (LEARNED, *RATES):
            centre = np.exp(means(some, optimizer, of))
            middle = np.median([getattr(curve, of) for curve in some if curve.optimizer == optimizer], axis=0)
            shown.add_row(of, optimizer, *(f"{centre[step]:.4f} / {middle[step]:.4f}" for step in steps))
        shown.add_section()
    return shown


def verdict(curves: Sequence[Curve], budget: str, horizon: int) -> str:
    """How soon the learned optimizer has the best error of SGD and Adam, and where it is long after its horizon."""
    some = [curve for curve in curves if curve.budget == budget]
    learned = means(some, LEARNED)
    sentences = []
    for optimizer in RATES:
        theirs = means(some, optimizer)[: HAND_STEPS + 1]
        first = np.flatnonzero(learned <= theirs.min())
        reached = f"after {first[0]}" if len(first) else "never"
        sentences.append(f"{optimizer}'s best error, {np.exp(theirs.min()):.4f} after {theirs.argmin()} steps: {reached}")
    late = [curve.query[-1] > _WORSE * curve.query[0] for curve in some if curve.optimizer == LEARNED]
    sentences.append(
        f"error after {horizon} steps {np.exp(learned[horizon]):.4f}, after {len(learned) - 1} {np.exp(learned[-1]):.4f}; "
        f"then worse than before by a tenth on {sum(late)} of {len(late)} models"
    )
    return f"Coalitions {budget}: the learned optimizer reaches " + "; ".join(sentences)


def small_tables() -> list[str]:
    """Held-out models with gradients on tables of at most 13 features: their references are exact and quickly made."""
    return [name for name in held_out_names() if name.split("/")[0] in _DATA and "/trees/" not in name]


def main(arguments: Sequence[str]) -> None:
    """Compare the learned optimizer with SGD and Adam, step by step. Their rates are searched on its training tasks."""
    parser = ArgumentParser(prog="captum-meta benchmark optimizers", description=main.__doc__)
    parser.add_argument("--quick", action="store_true", help="only a few models of every family")
    parser.add_argument("--learner", default="learned-optimizer", help="name of a shipped LearnedOptimizer, or a path")
    add_output(parser, Path("runs/optimizers.jsonl"))
    add_references(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    try:
        learner = load_learner(options.learner)
    except ValueError as error:
        parser.error(str(error))
    if not isinstance(learner, LearnedOptimizer):
        parser.error(f"--learner {options.learner} is a {type(learner).__name__}, not a LearnedOptimizer")
    names = [name for name in quick_names() if "/trees/" not in name] if options.quick else small_tables()
    rates = tune(learner, options.output)
    curves = run(learner, names, rates, options.output, options.references or options.output.parent / "references")
    console = Console(width=170)
    horizon = learner.steps
    steps = sorted({0, 1, 2, horizon // 2, horizon, HAND_STEPS, STRETCH * horizon})
    console.print(f"Rates found on the training tasks: {rates}")
    for budget in BUDGETS:
        console.print(table(curves, budget, steps), verdict(curves, budget, horizon))
    console.print(f"All results: {options.output}")
