"""`captum-meta benchmark`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from captum_meta.benchmark.compare import choose_methods, compare
from captum_meta.benchmark.heldout import held_out_names, quick_names
from captum_meta.benchmark.methods import METHODS, adapted_methods
from captum_meta.benchmark.summary import curves, family_group, size_group, summarise, tables, write
from captum_meta.benchmark.support_cost import outcome_table, support_table
from captum_meta.learners import load_learner

_FURTHER = {
    "adaptation": "adaptation",
    "background": "background",
    "defaults": "default_calls",
    "estimates": "error_estimates",
    "gradient-shap": "gradient_shap",
    "interactions": "interactions",
    "memory": "memory",
    "metrics": "metric_speed",
    "optimizers": "optimizers",
    "online": "online",
    "overhead": "overhead",
    "players": "many_players",
    "real": "real",
    "speed": "speed",
    "rows": "table_memory",
    "step": "step",
    "training": "training",
    "trust": "trust",
}
"""Further comparisons by name, and the modules whose ``main`` runs them."""

_UNITS = {"shapley": "coalitions beside 3 gradients, in multiples of M", "path": "gradients"}


def main(arguments: Sequence[str]) -> None:
    """Compare methods on the held-out problems, by family of models and by number of players."""
    if arguments and arguments[0] in _FURTHER:
        return import_module(f"captum_meta.benchmark.{_FURTHER[arguments[0]]}").main(arguments[1:])
    parser = _parser()
    if arguments and not arguments[0].startswith("-"):
        parser.error(f"there is no comparison {arguments[0]!r}: pass one of {', '.join(_FURTHER)}, or options alone.")
    options = parser.parse_args(arguments)
    try:
        choose_methods(METHODS[options.kind], options.methods)
        learners = {name: load_learner(name, options.kind) for name in options.learners}
    except ValueError as error:
        parser.error(str(error))
    # The models are small: threads would wait for each other longer than they work, most of all on a busy machine.
    torch.set_num_threads(1)
    names = quick_names() if options.quick else held_out_names()
    output = options.output or Path("runs") / f"benchmark-{options.kind}.jsonl"
    further = adapted_methods(options.kind, learners)
    results = compare(options.kind, names, output, output.parent / "references", options.methods, further)
    console = Console(width=170)
    summaries = []
    for group in (family_group, size_group):
        some = summarise(results, options.kind, group)
        summaries += some
        console.print(*tables(some, _UNITS[options.kind]))
    support = support_table(results, options.kind)
    if support is not None:
        console.print(support, outcome_table(results, options.kind))
    console.print(f"All results: {output}")
    for path in options.export:
        write(summaries, path)
        console.print(f"Summaries: {path}")
    if options.figures is not None:
        from captum_meta.benchmark.figures import family_figures

        for path in family_figures(curves(summarise(results, options.kind, family_group)), options.figures):
            console.print(f"Figure: {path}")


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog="captum-meta benchmark",
        description=main.__doc__,
        epilog=f"Further comparisons, each with its own --help: captum-meta benchmark {' | '.join(_FURTHER)}",
    )
    parser.add_argument("--kind", choices=("shapley", "path"), default="shapley", help="what is explained")
    parser.add_argument("--quick", action="store_true", help="a few problems of every family, in 3 minutes on 2 cores")
    parser.add_argument(
        "--methods", nargs="*", default=(), help="such as 'Captum KernelShap'; all by default, and a wrong name lists them"
    )
    parser.add_argument(
        "--learners",
        nargs="*",
        default=[],
        help="further learners, each adapted to 16 rows: shipped names, or paths given to save()",
    )
    parser.add_argument("--output", type=Path, default=None, help="JSON lines; a run is taken up where it stopped")
    parser.add_argument("--export", type=Path, nargs="*", default=[], help="summaries as .csv or .json files")
    parser.add_argument("--figures", type=Path, default=None, help="a folder: error against cost, a picture per family")
    return parser
