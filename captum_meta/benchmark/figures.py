"""Figures of comparisons: colour-blind safe, logarithmic where errors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from torch import Tensor

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "osD^vPX<>*h"
_EXACT = 1e-7
"""Errors below this are rounding; the axis ends there."""


Curves = Mapping[str, Sequence[tuple[float, float]]]


def error_against_cost(panels: Mapping[str, Curves], path: Path) -> None:
    """A panel for each title, and in it one line a method through its (evaluations a row, error), all logarithmic."""
    columns = min(2, len(panels))
    rows = -(-len(panels) // columns)
    methods = list(dict.fromkeys(method for curves in panels.values() for method in curves))
    figure = Figure(figsize=(7 * columns, 4.5 * rows), layout="constrained")
    all_axes = figure.subplots(rows, columns, squeeze=False).flatten()
    for axes, (title, curves) in zip(all_axes, panels.items(), strict=False):
        for method, points in curves.items():
            index = methods.index(method)
            style = {"linestyle": "-" if index < 7 else "--", "linewidth": 2.5 if method.startswith("Meta") else 1.2}
            cost, error = zip(*points, strict=True)
            axes.plot(cost, error, color=_COLOURS[index % 7], marker=_MARKERS[index % len(_MARKERS)], label=method, **style)
        axes.set(xscale="log", yscale="log", title=title)
        axes.set_xlabel("model evaluations a row (a gradient counts as 3)")
        axes.set_ylabel("relative squared error")
        if axes.get_ylim()[0] < _EXACT:
            axes.set_ylim(bottom=_EXACT)
        axes.grid(alpha=0.3, which="both")
    for axes in all_axes[len(panels) :]:
        axes.set_axis_off()
    handles = {label: line for axes in all_axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=min(4, len(handles)))
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def attributions_of_one_row(values: Mapping[str, Tensor], names: Sequence[str], path: Path, top: int = 10) -> None:
    """Bars of the features that matter most to the first of ``values``, side by side."""
    first = next(iter(values.values()))
    order = first.abs().argsort(descending=True)[:top].flip(0)
    figure = Figure(figsize=(8, 5.5), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(values)
    for index, (label, row) in enumerate(values.items()):
        places = [place - index * height for place in range(len(order))]
        axes.barh(places, row[order].tolist(), height, color=_COLOURS[index % 7], label=label)
    axes.set_yticks([place - height for place in range(len(order))], [names[int(i)] for i in order])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("attribution")
    axes.grid(alpha=0.3, axis="x")
    figure.legend(loc="outside upper center", ncols=len(values))
    figure.savefig(path, dpi=150)
