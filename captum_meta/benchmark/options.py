"""Options that several comparisons have.

Command lines are argparse's. jsonargparse, which makes them of a function's signature and docstring, takes 33 lines for
three of them in place of 28, wants ``--quick true``, ``--held_out`` and ``--nets [CNN,GRU]`` for ``--quick``, ``--held-out``
and ``--nets CNN GRU``, and needs .4 s to be imported.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Iterable
from pathlib import Path


def add_choices(parser: ArgumentParser, name: str, choices: Iterable[str], metavar: str) -> None:
    """An option that takes some of the choices, all by default; its help lists them.

    >>> parser = ArgumentParser()
    >>> add_choices(parser, "--nets", ["CNN", "GRU"], "NET")
    >>> parser.parse_args(["--nets", "GRU"]).nets, parser.parse_args([]).nets
    (['GRU'], ['CNN', 'GRU'])
    """
    names = list(choices)
    text = f"one or more of: {'; '.join(names)} (default: all)".replace("%", "%%")
    parser.add_argument(name, nargs="+", choices=names, default=names, metavar=metavar, help=text)


def add_output(parser: ArgumentParser, default: Path) -> None:
    """`--output`, the file of results."""
    text = f"file of results, as JSON lines; the same command continues a run that stopped (default: {default})"
    parser.add_argument("--output", type=Path, metavar="FILE", default=default, help=text)


def add_lines(parser: ArgumentParser) -> None:
    """`--output`, a file to which results are added, if it is named."""
    parser.add_argument("--output", type=Path, metavar="FILE", default=None, help="file for the results, as JSON lines")


def add_references(parser: ArgumentParser) -> None:
    """`--references`, the folder of right answers, which several comparisons share."""
    text = "folder of exact attributions, which are computed once (default: beside the output, or runs/references)"
    parser.add_argument("--references", type=Path, metavar="FOLDER", default=None, help=text)
