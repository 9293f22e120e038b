"""Pictures of the comparison on held-out models, one file for each family."""

from __future__ import annotations

from collections.abc import Mapping
from math import inf, sqrt
from pathlib import Path
from re import sub

from matplotlib.figure import Figure

from captum_meta.benchmark.support_cost import evaluations_for
from captum_meta.visualization import PEER, Curves, error_against_cost, method_colour


def family_figures(panels: Mapping[str, Curves], folder: Path) -> list[Path]:
    """Error against cost of each family, into ``folder``; the files that were written."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for family, curves in panels.items():
        figure = with_saving(error_against_cost(curves, family), curves)
        paths.append(folder / f"{sub('[^a-z0-9]+', '-', family.lower())}.png")
        figure.savefig(paths[-1], dpi=110)
    return paths


def with_saving(figure: Figure, curves: Curves) -> Figure:
    """The figure, with an arrow from the best peer's lowest error to ours: how many times fewer evaluations it takes."""
    ours, peers = ([p for n, p in curves.items() if (method_colour(n) == PEER) == peer] for peer in (False, True))
    if not ours or not peers:
        return figure
    cost, error = min((points[-1] for points in peers), key=lambda point: point[1])
    needed = min(evaluations_for(error, points) for points in ours)
    if needed in (0, inf) or needed >= cost:
        return figure
    axes = figure.axes[0]
    axes.annotate("", (needed, error), (cost, error), arrowprops={"arrowstyle": "->", "linewidth": 1.4})
    axes.annotate(
        f"{cost / needed:.1f} times fewer evaluations",
        (sqrt(needed * cost), error), (0, 5), textcoords="offset points", ha="center",
    )  # fmt: skip
    return figure
