"""Intervals around attributions in pictures: signs that are not certain, and widths."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from matplotlib.axes import Axes
from matplotlib.patches import PathPatch
from matplotlib.path import Path
from torch import Tensor

if TYPE_CHECKING:
    import shap

OPEN_SIGN = "the interval contains 0"
_BAND: dict[str, Any] = {"color": "#BDBDBD", "alpha": 0.6, "linewidth": 0, "zorder": 0}


def open_signs(values: Tensor, widths: Tensor) -> Tensor:
    """Where intervals contain zero beside other numbers."""
    return (values.abs() <= widths) & (widths > 0)


def hatch_open_signs(values: Tensor, widths: Tensor, axes: Axes) -> None:
    """Hatch the pixels ``(H, W)`` whose intervals contain zero, and say so under the axes."""
    unsure = open_signs(values, widths)
    if not bool(unsure.any()):
        return
    runs = [_rectangle(row, *run) for row, line in enumerate(unsure.tolist()) for run in _runs(line)]
    style: dict[str, Any] = {"facecolor": "none", "edgecolor": "black", "hatch": "////", "linewidth": 0}
    axes.add_patch(PathPatch(Path.make_compound_path(*runs), label=f"hatched: {OPEN_SIGN}", **style))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, 0), frameon=False, handleheight=1.2)


def band_typical_widths(explanation: shap.Explanation, axes: Axes) -> None:
    """Behind the dots of each feature of a beeswarm, the median of its intervals' half-widths to both sides of zero."""
    widths = torch.as_tensor(explanation.upper_bounds - explanation.values).nanmedian(0).values.tolist()
    typical = dict(zip(explanation.feature_names, widths, strict=True))
    for y, label in zip(axes.get_yticks(), axes.get_yticklabels(), strict=True):
        if (width := typical.get(label.get_text())) is not None:
            axes.barh(y, 2 * width, 0.8, left=-width, **_BAND)
    axes.set_xlabel(f"{axes.get_xlabel()}\ngrey: here the median interval contains 0")


def _runs(line: list[bool]) -> list[tuple[int, int]]:
    """First and last place of each run of what is true.

    >>> _runs([True, False, True, True])
    [(0, 0), (2, 3)]
    """
    starts = [i for i, now in enumerate(line) if now and not (i and line[i - 1])]
    ends = [i for i, now in enumerate(line) if now and not (i + 1 < len(line) and line[i + 1])]
    return list(zip(starts, ends, strict=True))


def _rectangle(row: int, first: int, last: int) -> Path:
    """Pixels of one row, as ``imshow`` places them."""
    left, right, top, bottom = first - 0.5, last + 0.5, row - 0.5, row + 0.5
    return Path([(left, top), (right, top), (right, bottom), (left, bottom), (left, top)], closed=True)
