"""Colours of methods, and axes to draw into."""

from __future__ import annotations

from typing import cast

try:
    import matplotlib.pyplot as plt
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
except ImportError as error:
    raise ImportError("captum_meta.visualization needs matplotlib: pip install 'captum-meta[plots]'.") from error

ZERO_SHOT, ADAPTED, PEER = "#0072B2", "#D55E00", "#8C8C8C"
"""Blue, vermilion and grey of Okabe and Ito's palette, which people of all colour visions tell apart."""


def method_colour(name: str) -> str:
    """Blue for our methods, vermilion where they are adapted, grey for all others.

    >>> method_colour("Captum KernelShap") == PEER, method_colour("MetaKernelShap, zero-shot") == ZERO_SHOT
    (True, True)
    """
    if not name.startswith("Meta"):
        return PEER
    return ADAPTED if "rows" in name or "adapted" in name else ZERO_SHOT


def new_axes(width: float = 7, height: float = 4) -> Axes:
    """Axes of a figure that pyplot does not keep: a notebook shows it once, where it is returned."""
    figure, axes = plt.subplots(figsize=(width, height), layout="constrained")
    plt.close(figure)
    return axes


def figure_of(axes: Axes) -> Figure:
    return cast(Figure, axes.get_figure())
