"""Error against cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import cycle
from math import log
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from captum_meta.visualization._canvas import PEER, figure_of, method_colour, new_axes

_ROUNDING = 1e-7
"""Relative squared errors below this are rounding of float32; axes end there."""

Curves = Mapping[str, Sequence[tuple[float, float]]]


def error_against_cost(
    curves: Curves, title: str = "", *, intervals: Curves | None = None, axes: Axes | None = None
) -> Figure:
    """Error against model evaluations per row, one line per method, both logarithmic, with its name at its end.

    Args:
        curves: by method, pairs of evaluations per row (a gradient counts as 3) and relative squared error. Names that begin
            with "Meta" are ours: blue, or orange where they say "rows" or "adapted".
        title: of the axes.
        intervals: by method, the low and high end of each point's error: drawn as vertical lines.
        axes: where to draw; a new figure by default.

    >>> figure = error_against_cost({"MetaKernelShap": [(9, 0.2), (40, 0.01)], "Captum KernelShap": [(40, 0.3)]})
    """
    axes = axes or new_axes(8, 4.8)
    markers = cycle("^vs<>DPX")
    axes.set(xscale="log", yscale="log", title=title, ylabel="relative squared error")
    axes.set_xlabel("model evaluations per row (a gradient counts as 3)")
    for name, points in curves.items():
        cost, error = zip(*points, strict=True)
        ours = method_colour(name) != PEER
        style: dict[str, Any] = (
            {"linewidth": 2.8, "marker": "o", "zorder": 3} if ours else {"linewidth": 1.1, "marker": next(markers)}
        )
        axes.plot(cost, error, color=method_colour(name), markersize=5, **style)
        if intervals is not None:
            axes.vlines(cost, *zip(*intervals[name], strict=True), color=method_colour(name), linewidth=1, alpha=0.6)
    if axes.get_ylim()[0] < _ROUNDING:
        axes.set_ylim(bottom=_ROUNDING)
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 3)))
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    _names_at_the_ends(curves, axes)
    return figure_of(axes)


def _names_at_the_ends(curves: Curves, axes: Axes) -> None:
    """The methods' names right of the axes, beside their last points, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    ends = {name: (points[-1][0], max(points[-1][1], low)) for name, points in curves.items()}
    names = sorted(ends, key=lambda name: ends[name][1], reverse=True)
    wanted = [log(ends[name][1] / low) / log(high / low) for name in names]
    for name, height in zip(names, _apart(wanted, 0.06), strict=True):
        ours = method_colour(name) != PEER
        line = {"arrowstyle": "-", "color": PEER, "linewidth": 0.5, "relpos": (0, 0.5), "shrinkA": 2}
        style: dict[str, Any] = {"color": method_colour(name), "weight": "bold" if ours else "normal", "arrowprops": line}
        place: dict[str, Any] = {
            "xytext": (1.03, height),
            "textcoords": "axes fraction",
            "va": "center",
            "annotation_clip": False,
        }
        axes.annotate(name, ends[name], **place, **style)


def _apart(heights: Sequence[float], gap: float) -> list[float]:
    """Falling heights, moved so that neighbours are ``gap`` apart and none is below 0.

    >>> _apart([0.5, 0.5, 0.01], 0.25)
    [0.5, 0.25, 0.0]
    """
    placed: list[float] = []
    for index, height in enumerate(heights):
        lowest = gap * (len(heights) - 1 - index)
        placed.append(max(lowest, min([height, *(above - gap for above in placed[-1:])])))
    return placed
