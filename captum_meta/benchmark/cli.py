"""`captum-meta benchmark`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from captum_meta.benchmark.compare import compare, table
from captum_meta.benchmark.heldout import held_out_names, quick_names

_TABULAR = ("mlp", "residual", "transformer")


def main(arguments: Sequence[str]) -> None:
    """Compare methods on the held-out problems and print a table for each group of models."""
    parser = ArgumentParser(prog="captum-meta benchmark", description=main.__doc__)
    parser.add_argument("--kind", choices=("shapley", "path"), default="shapley", help="what is explained")
    parser.add_argument("--quick", action="store_true", help="every fifth problem")
    parser.add_argument("--methods", nargs="*", default=(), help="names of methods; all by default")
    parser.add_argument("--output", type=Path, default=None, help="JSON lines; a run is taken up where it stopped")
    options = parser.parse_args(arguments)
    names = quick_names() if options.quick else held_out_names()
    output = options.output or Path("runs") / f"benchmark-{options.kind}.jsonl"
    results = compare(options.kind, names, output, output.parent / "references", options.methods)
    console = Console(width=170)
    unit = "coalitions beside 3 gradients, in multiples of M" if options.kind == "shapley" else "gradients"
    images = [r for r in results if r.problem.startswith("digits-patches")]
    tabular = [r for r in results if r.family in _TABULAR and r not in images]
    others = {family: [r for r in results if r.family == family] for family in ("rnn", "trees")}
    for label, some in {"MLPs, residual nets, transformers": tabular, "image patches": images, **others}.items():
        if some:
            count = len({r.problem for r in some})
            console.print(table(some, f"{label} ({count} models): median / mean error; {unit}"))
    console.print(f"All results: {output}")
