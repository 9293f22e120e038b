"""`captum-meta benchmark memory`: peak memory of a long inner loop's gradient, by the method of differentiation."""

from __future__ import annotations

import resource
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from math import log2
from multiprocessing import get_context
from time import process_time
from typing import Any, TypeVar

import torch
from rich.console import Console
from rich.table import Table

from captum_meta.benchmark.journal import kept
from captum_meta.benchmark.options import add_lines
from captum_meta.benchmark.step import random_tasks
from captum_meta.benchmark.tables import table_of
from captum_meta.learners import MomentumMAML, load_learner
from captum_meta.optim import Backprop, Hypergradient, Reversible, Segmented
from captum_meta.optim.reversible import kept_bits

Result = TypeVar("Result")
TASKS, MOMENTUM = 2, 0.9
WAYS: dict[str, type[Hypergradient]] = {"unroll": Backprop, "segments": Segmented, "reversible": Reversible}


@dataclass(frozen=True)
class Peak:
    """One meta-training step of the shipped explainer, all its parameters fast: 2 tasks of 10 + 10 rows of 16 players.

    Attributes:
        way, steps: how the inner loop is differentiated, and its length.
        megabytes: peak resident memory of the process above that of a step with an inner loop of two.
        seconds: of one core.
        buffer: megabytes of it in the information buffer of the reversible loop.
        bits: that the buffer is filled with, for each parameter and step.
    """

    way: str
    steps: int
    megabytes: float
    seconds: float
    buffer: float = 0.0
    bits: float = 0.0


def measure(way: str, steps: int) -> Peak:
    """To be called in a process of its own: peaks do not go down again."""
    torch.set_num_threads(1)
    tasks = random_tasks()[:TASKS]
    _learner(way, 2).loss(tasks).backward()
    before, start = peak_megabytes(), process_time()
    learner = _learner(way, steps)
    learner.loss(tasks).backward()
    peak = Peak(way, steps, peak_megabytes() - before, process_time() - start)
    if way != "reversible":
        return peak
    kept = kept_bits(next(iter(learner.fit(tasks.support).values())))
    return Peak(**{**asdict(peak), "buffer": kept.megabytes, "bits": kept.bits / steps})


def table(peaks: Sequence[Peak]) -> Table:
    """Steps by ways."""
    expected = log2(1 / MOMENTUM)
    columns = ("way", "steps", "MB above two steps", "s", "of it buffer MB", "bits per parameter and step")
    shown = table_of(f"Peak memory; log2(1 / momentum) is {expected:.3f}", columns, ("way",))
    for p in peaks:
        buffer = (f"{p.buffer:.1f}", f"{p.bits:.3f}") if p.bits else ("", "")
        shown.add_row(p.way, str(p.steps), f"{p.megabytes:.0f}", f"{p.seconds:.1f}", *buffer)
    return shown


def main(arguments: Sequence[str]) -> None:
    """Measure peak memory of a meta-training step by the length of its inner loop: unrolled, in segments, reversible."""
    parser = ArgumentParser(prog="captum-meta benchmark memory", description=main.__doc__)
    parser.add_argument(
        "--steps", type=int, nargs="+", default=[20, 50, 100, 200, 500], metavar="N", help="numbers of inner steps"
    )
    add_lines(parser)
    options = parser.parse_args(arguments)
    cases = [(way, steps) for way in WAYS for steps in options.steps]
    Console(width=110).print(table(list(kept(options.output, in_processes(measure, cases)))))


def _learner(way: str, steps: int) -> MomentumMAML:
    explainer = load_learner("zero-shot").explainer.requires_grad_(True)
    return MomentumMAML(explainer, ("*",), steps, 1e-4, momentum=MOMENTUM, hypergradient=WAYS[way]())


def in_processes(measure: Callable[..., Result], cases: Iterable[tuple[Any, ...]]) -> Iterator[Result]:
    """The function's answers for each case, called in a process of its own."""
    with get_context("spawn").Pool(1, maxtasksperchild=1) as processes:
        for case in cases:
            yield processes.apply(measure, case)


def peak_megabytes() -> float:
    """The most resident memory that this process has had so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2**20 if sys.platform == "darwin" else peak / 2**10
