"""`captum-meta benchmark step`: the meta-training step beside the loop over tasks that meta-learning libraries run.

Of these torchopt is timed itself, at second order, which is all that its ``MetaSGD`` computes. The loop written out here
stands for the others: higher (0.2.1) cannot patch a module that is an abstract base class, as explainers are, and
learn2learn's loop is this one, but the library needs Cython to be built.
"""

from __future__ import annotations

import resource
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from itertools import product
from statistics import median

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.func import functional_call

from captum_meta.benchmark.journal import kept
from captum_meta.benchmark.options import add_lines
from captum_meta.benchmark.tables import table_of
from captum_meta.benchmark.timing import in_turn
from captum_meta.learners import MAML, load_learner
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.optim import Backprop, FirstOrder
from captum_meta.types import SHAPLEY_POINTS, Evidence, Explanations, ExplanationTask

TASKS, ROWS, PLAYERS = 16, 10, 16
FAST = {"all": ("*",), "head": ("head.*",)}


@dataclass(frozen=True)
class Timing:
    """One meta-training step of 16 tasks, 10 support rows, 10 query rows and 16 players, in milliseconds of one core.

    Attributes:
        fast, order, steps: the inner loop.
        ours: all tasks at once.
        compiled: the same by compiled graphs.
        compiling: seconds of the first compiled step, the compiler's processes included; little where its cache knows it.
        torchopt: over tasks by torchopt's MetaSGD, with one rate that is not learned and nothing clipped; 0 where not timed.
        loop: over tasks, as libraries write it: ``autograd.grad`` for each step, one backward for each task.
        floor: plain forward-backwards over the same rows with shared weights, one for each inner step and one more.
        megabytes: what ours keeps for the backward pass.
    """

    fast: str
    order: str
    steps: int
    ours: float
    loop: float
    floor: float
    megabytes: float
    compiled: float = 0.0
    compiling: float = 0.0
    torchopt: float = 0.0


def random_tasks(seed: int = 0) -> ExplanationTask:
    """Evidence and attributions of nothing: only their shapes matter here."""
    generator = torch.Generator().manual_seed(seed)

    def rows() -> Explanations:
        effects = torch.randn(TASKS, ROWS, PLAYERS, 5, generator=generator)
        measured = torch.ones_like(effects, dtype=torch.bool)
        points = torch.tensor(SHAPLEY_POINTS).expand(TASKS, ROWS, 3)
        values = effects.mean(-1)
        curve = torch.randn(TASKS, ROWS, 3, generator=generator)
        return Explanations(Evidence(effects, measured, measured[..., 0], values.sum(-1), curve, points), values)

    return ExplanationTask(rows(), rows())


def learner(fast: str, order: str, steps: int) -> MAML:
    """The shipped explainer under MAML."""
    explainer = load_learner("zero-shot").explainer.requires_grad_(True)
    return MAML(explainer, FAST[fast], steps, hypergradient=Backprop() if order == "second" else FirstOrder())


def our_step(learner: MAML, tasks: ExplanationTask) -> None:
    """Loss and gradients of all tasks."""
    learner.zero_grad()
    learner.loss(tasks).backward()


def loop_step(learner: MAML, tasks: ExplanationTask) -> None:
    """The same, a task at a time."""
    learner.zero_grad()
    explainer, rule = learner.explainer, learner.rule
    second_order = isinstance(learner.hypergradient, Backprop)
    start = dict(explainer.named_parameters())
    for index in range(len(tasks.support.attributions)):
        task = tasks[index]
        values: dict[str, Tensor] = {name: start[name] for name in learner.names}
        for step in range(learner.steps):
            predicted = functional_call(explainer, values, (task.support.evidence,)).attributions
            loss = scaled_squared_error(predicted, task.support.attributions)
            gradients = torch.autograd.grad(loss, list(values.values()), create_graph=second_order)
            as_tasks = {n: v.unsqueeze(0) for n, v in values.items()}
            along = {n: g.unsqueeze(0) for n, g in zip(values, gradients, strict=True)}
            moved, _ = rule.update(step, as_tasks, along, {})
            values = {n: v.squeeze(0) for n, v in moved.items()}
        predicted = functional_call(explainer, values, (task.query.evidence,)).attributions
        (relative_squared_error(predicted, task.query.attributions) / TASKS).backward()


def torchopt_step(learner: MAML, tasks: ExplanationTask, rate: float = 0.01) -> None:
    """The loop over tasks as torchopt's users write it: MetaSGD replaces the module's parameters, and is undone."""
    import torchopt

    learner.zero_grad()
    explainer = learner.explainer
    adapted = explainer if learner.fast == FAST["all"] else explainer.get_submodule("head")
    start = torchopt.extract_state_dict(adapted, by="reference")
    for index in range(len(tasks.support.attributions)):
        task, optimizer = tasks[index], torchopt.MetaSGD(adapted, lr=rate)
        for _ in range(learner.steps):
            predicted = explainer(task.support.evidence).attributions
            optimizer.step(scaled_squared_error(predicted, task.support.attributions))
        predicted = explainer(task.query.evidence).attributions
        (relative_squared_error(predicted, task.query.attributions) / len(tasks.support.attributions)).backward()
        torchopt.recover_state_dict(adapted, start)


def floor_step(learner: MAML, tasks: ExplanationTask) -> None:
    """Plain forward-backwards with shared weights."""
    learner.zero_grad()
    parameters = [learner.explainer.get_parameter(name) for name in learner.names]
    for _ in range(learner.steps):
        predicted = learner.explainer(tasks.support.evidence).attributions
        torch.autograd.grad(scaled_squared_error(predicted, tasks.support.attributions), parameters)
    predicted = learner.explainer(tasks.query.evidence).attributions
    relative_squared_error(predicted, tasks.query.attributions).backward()


def kept_megabytes(learner: MAML, tasks: ExplanationTask) -> float:
    """Storage that the forward of a step keeps for its backward, the parameters' own aside."""
    storages: dict[int, int] = {}
    own = {parameter.untyped_storage().data_ptr() for parameter in learner.parameters()}

    def keep(value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            storages[storage.data_ptr()] = storage.nbytes()
        return value

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = learner.loss(tasks)
    kept = sum(storages.values()) / 2**20
    del loss
    return kept


def compiled_learner(fast: str, order: str, steps: int, tasks: ExplanationTask) -> tuple[MAML, float]:
    """A learner whose graphs are compiled, and the seconds of processors that this took."""
    maml, start = learner(fast, order, steps), _processor_seconds()
    maml.compile()
    our_step(maml, tasks)
    return maml, _processor_seconds() - start


def time_steps(fast: str, order: str, steps: int, repeats: int, compile: bool = False) -> Timing:
    """Median times, all ways taking turns so that they meet the same machine."""
    maml, tasks = learner(fast, order, steps), random_tasks()
    ways: dict[str, Callable[[], None]] = {
        "ours": partial(our_step, maml, tasks),
        "loop": partial(loop_step, maml, tasks),
        "floor": partial(floor_step, maml, tasks),
    }
    if order == "second" and find_spec("torchopt") is not None:
        ways["torchopt"] = partial(torchopt_step, maml, tasks)
    compiling = 0.0
    if compile:
        graphs, compiling = compiled_learner(fast, order, steps, tasks)
        ways["compiled"] = partial(our_step, graphs, tasks)
    medians = {name: 1000 * median(values) for name, values in in_turn(ways, repeats).items()}
    return Timing(fast, order, steps, **medians, compiling=compiling, megabytes=kept_megabytes(maml, tasks))


def table(timings: Sequence[Timing]) -> Table:
    """All timings, with the ratios that matter."""
    title = f"Meta-training step: {TASKS} tasks x {ROWS} + {ROWS} rows x {PLAYERS} players, one explainer, ms"
    times = ("ours", "compiled", "loop", "torchopt", "floor")
    columns = ("fast", "order", "steps", *times, "loop / ours", "loop / compiled", "best / floor", "compiling s", "kept MB")
    shown = table_of(title, columns, ("fast", "order"))
    for t in timings:
        best = min(t.ours, t.compiled or t.ours)
        shown.add_row(
            *(t.fast, t.order, str(t.steps)),
            *[f"{value:.0f}" if value else "" for value in (getattr(t, name) for name in times)],
            *(f"{t.loop / t.ours:.1f}", f"{t.loop / t.compiled:.1f}" if t.compiled else "", f"{best / t.floor:.1f}"),
            *(f"{t.compiling:.0f}" if t.compiling else "", f"{t.megabytes:.0f}"),
        )
    return shown


def main(arguments: Sequence[str]) -> None:
    """Time one meta-training step of the shipped explainer, a plain loop over tasks, and the least that both must compute.

    Times are those of one core's work, so that a busy machine changes them little.
    """
    parser = ArgumentParser(prog="captum-meta benchmark step", description=main.__doc__)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 5, 20], metavar="N", help="numbers of inner steps")
    parser.add_argument("--repeats", type=int, default=5, help="how often each is timed; the median is shown (default: 5)")
    parser.add_argument(
        "--compile", action="store_true", help="also with compiled graphs: the first time takes minutes more"
    )
    add_lines(parser)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    cases = product(FAST, ("second", "first"), options.steps)
    timings = kept(options.output, (time_steps(*case, options.repeats, options.compile) for case in cases))
    Console(width=150).print(table(list(timings)))


def _processor_seconds() -> float:
    usages = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in usages)
