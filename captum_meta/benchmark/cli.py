"""`captum-meta benchmark`."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path

import torch
from rich.console import Console

from captum_meta.benchmark.best_peer import best_peer_table
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
    "labels": "labels",
    "memory": "memory",
    "metrics": "metric_speed",
    "optimizers": "optimizers",
    "online": "online",
    "players": "many_players",
    "real": "real",
    "small": "small_models",
    "speed": "speed",
    "rows": "table_memory",
    "step": "step",
    "table": "table_rate",
    "training": "training",
    "trust": "trust",
    "ways": "ways",
}
"""Further comparisons by name, and the modules whose ``main`` runs them."""

_UNITS = {"shapley": "coalitions beside 3 gradients, in multiples of M", "path": "gradients"}


def main(arguments: Sequence[str]) -> None:
    """Compare methods at equal cost on models and data that took no part in training."""
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
    # the models are so small that threads cost more than they gain
    torch.set_num_threads(1)
    names = quick_names() if options.quick else held_out_names()
    output = options.output or Path("runs") / f"benchmark-{options.kind}.jsonl"
    further = adapted_methods(options.kind, learners)
    results = compare(options.kind, names, output, output.parent / "references", options.methods, further, options.budgets)
    console = Console(width=170)
    summaries = []
    for group in (family_group, size_group):
        some = summarise(results, options.kind, group)
        summaries += some
        console.print(*tables(some, _UNITS[options.kind]))
    peers = best_peer_table(results, options.kind, family_group)
    if peers is not None:
        console.print(peers)
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
        epilog=f"Further comparisons, each with a --help: captum-meta benchmark NAME. The names: {', '.join(_FURTHER)}.",
    )
    kinds = "Shapley values (default), or path integrals such as Integrated Gradients"
    methods = "such as 'Captum KernelShap'; default: all. A name that does not exist lists those that do"
    learners = "further learners to adapt to 16 rows: names of shipped ones, or paths given to save()"
    output = "file of results, as JSON lines; the same command continues a run that stopped (default: in runs/)"
    figures = "folder for pictures of error against cost, one per family of models"
    parser.add_argument("--kind", choices=("shapley", "path"), default="shapley", help=kinds)
    parser.add_argument("--quick", action="store_true", help="only a few models of every family: 3 minutes on 2 cores")
    parser.add_argument("--methods", nargs="*", metavar="METHOD", default=(), help=methods)
    budgets = "coalitions as multiples of M (default: 0 2 4 8 16 32), or gradients (default: 3 5 10)"
    parser.add_argument("--budgets", type=int, nargs="+", metavar="N", default=(), help=budgets)
    parser.add_argument("--learners", nargs="*", metavar="LEARNER", default=[], help=learners)
    parser.add_argument("--output", type=Path, metavar="FILE", default=None, help=output)
    parser.add_argument(
        "--export", type=Path, nargs="*", metavar="FILE", default=[], help="summaries as .csv or .json files"
    )
    parser.add_argument("--figures", type=Path, metavar="FOLDER", default=None, help=figures)
    return parser
