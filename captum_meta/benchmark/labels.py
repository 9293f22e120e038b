"""`captum-meta benchmark labels`: how many synthetic tasks are made and labelled in a second, and where the time goes."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from dataclasses import dataclass
from time import process_time

import torch
from rich.console import Console
from rich.progress import track
from rich.table import Table

from captum_meta.benchmark.tables import table_of
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Kind

_SHOWN = 5


@dataclass(frozen=True)
class Made:
    """One batch of tasks.

    Attributes:
        index: of the batch.
        players: of each of its models.
        models: seconds of a processor to make and train them.
        labels: and to measure and to label their rows.
    """

    index: int
    players: int
    models: float
    labels: float


def made(family: SyntheticTaskFamily, batches: int) -> list[Made]:
    """The time of each of the first batches."""
    found = []
    for index in track(range(batches), description=f"Tasks of kind {family.kind}"):
        start = process_time()
        players = family.games(index).shape[2]
        models = process_time() - start
        start = process_time()
        family.variants(index)  # makes the models again
        found.append(Made(index, players, models, max(0.0, process_time() - start - models)))
    return found


def table(found: Sequence[Made], tasks: int, title: str) -> Table:
    """Tasks per second, and the batches that cost the most."""
    columns = ("batches", "tasks per second", "seconds, models", "seconds, labels", "share of the total")
    shown = table_of(title, columns, ("batches",))
    total = sum(each.models + each.labels for each in found)

    def line(name: str, some: Sequence[Made]) -> None:
        models, labels = (sum(getattr(each, part) for each in some) for part in ("models", "labels"))
        seconds = max(models + labels, 1e-9)
        shown.add_row(
            name, f"{tasks * len(some) / seconds:.1f}", f"{models:.2f}", f"{labels:.2f}", f"{seconds / max(total, 1e-9):.0%}"
        )

    line(f"all {len(found)}", found)
    for each in sorted(found, key=lambda each: each.models + each.labels, reverse=True)[:_SHOWN]:
        line(f"number {each.index}, {each.players} players", [each])
    return shown


def main(arguments: Sequence[str]) -> None:
    """Make and label synthetic tasks on one core, and print tasks per second of a processor."""
    parser = ArgumentParser(prog="captum-meta benchmark labels", description=main.__doc__)
    parser.add_argument("--batches", type=int, default=40, help="of each kind")
    parser.add_argument("--tasks", type=int, default=16, help="models of a batch, as in the configuration of zero-shot")
    parser.add_argument("--rows", type=int, default=16, help="of each model")
    chosen = parser.parse_args(arguments)
    torch.set_num_threads(1)
    kinds: tuple[Kind, ...] = ("shapley", "path")
    for kind in kinds:
        family = SyntheticTaskFamily(kind, tasks_per_batch=chosen.tasks, rows=chosen.rows, seed=1)
        Console(width=110).print(table(made(family, chosen.batches), chosen.tasks, f"{kind}, {chosen.rows} rows a task"))
