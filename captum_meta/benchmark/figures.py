"""Figures of comparisons: colour-blind safe, logarithmic where errors are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib.pyplot as plt
from torch import Tensor

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
_MARKERS = "osD^vPX"


def error_against_cost(curves: Mapping[str, Sequence[tuple[int, float]]], path: Path, title: str) -> None:
    """One line a method through its (evaluations a row, error) points, both axes logarithmic."""
    figure, axes = plt.subplots(figsize=(7, 4.5), layout="constrained")
    for index, (method, points) in enumerate(curves.items()):
        cost, error = zip(*points, strict=True)
        axes.plot(cost, error, color=_COLOURS[index % 7], marker=_MARKERS[index % 7], label=method)
    axes.set(xscale="log", yscale="log", title=title)
    axes.set_xlabel("model evaluations a row (a gradient counts as 3)")
    axes.set_ylabel("relative squared error")
    axes.grid(alpha=0.3, which="both")
    axes.legend()
    figure.savefig(path, dpi=150)
    plt.close(figure)


def attributions_of_one_row(values: Mapping[str, Tensor], names: Sequence[str], path: Path, top: int = 10) -> None:
    """Bars of the features that matter most to the first of ``values``, side by side."""
    first = next(iter(values.values()))
    order = first.abs().argsort(descending=True)[:top].flip(0)
    figure, axes = plt.subplots(figsize=(8, 5.5), layout="constrained")
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
    plt.close(figure)
