"""`captum-meta benchmark speed`: CPU seconds and memory of our calls beside Captum's, or the model's own evaluations."""

from __future__ import annotations

import warnings
from argparse import ArgumentParser
from collections.abc import Iterable, Sequence
from math import isnan

import torch
from rich.console import Console
from rich.table import Table

from captum_meta.benchmark.memory import in_processes, peak_megabytes
from captum_meta.benchmark.options import add_choices
from captum_meta.benchmark.speed_cases import SECTIONS, STEPS, path_calls
from captum_meta.benchmark.speed_nets import PATHS, path_case
from captum_meta.benchmark.tables import table_of
from captum_meta.benchmark.timing import Timing

_MOST_MEMORY = 1.3


def peak(name: str, which: int) -> float:
    """Peak resident megabytes of our (0) or Captum's (1) Integrated Gradients. To be called in a process of its own."""
    torch.set_num_threads(1)
    path_calls(path_case(name), STEPS, STEPS)[which]()
    return peak_megabytes()


def table(title: str, unit: str, timings: Iterable[Timing]) -> Table:
    """The measurements and their upper limits."""
    shown = table_of(title, ("", f"ours, {unit}", f"other, {unit}", "ratio", "at most"), ("",))
    for timing in timings:
        numbers = [timing.ours, timing.theirs]
        cells = ["" if isnan(number) else f"{number:.4g}" for number in numbers]
        shown.add_row(timing.name, *cells, f"{timing.ratio:.3g}", f"{timing.most:g}")
    return shown


def main(arguments: Sequence[str]) -> None:
    """Compare CPU seconds of our calls with Captum's: one thread, medians over calls made in turn."""
    parser = ArgumentParser(prog="captum-meta benchmark speed", description=main.__doc__)
    add_choices(parser, "--sections", SECTIONS, "SECTION")
    parser.add_argument("--runs", type=int, default=5, help="how often each call is timed (default: 5)")
    parser.add_argument("--memory", action="store_true", help="also peak memory of Integrated Gradients, a process for each")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    console = Console(width=120)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for name in options.sections:
            section = SECTIONS[name]
            console.print(table(str(section.__doc__), "s", section(options.runs)))
    if options.memory:
        console.print(table(f"Integrated Gradients, {STEPS} steps", "MB", _peaks()))


def _peaks() -> list[Timing]:
    found = list(in_processes(peak, [(name, which) for name in PATHS for which in (0, 1)]))
    triples = zip(PATHS, found[::2], found[1::2], strict=True)
    return [Timing(name, ours, theirs, ours / theirs, _MOST_MEMORY) for name, ours, theirs in triples]
