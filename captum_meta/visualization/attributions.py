"""Attributions of rows, images and texts, and interactions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from itertools import cycle
from typing import TYPE_CHECKING, Any, cast

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from captum_meta.visualization._canvas import PEER, figure_of, method_colour, new_axes
from captum_meta.visualization._intervals import OPEN_SIGN, band_typical_widths, hatch_open_signs, open_signs

if TYPE_CHECKING:
    import shap

_SIGNS = "PRGn"
_BAR = "#4D4D4D"


def bars(
    values: Tensor | Mapping[str, Tensor],
    names: Sequence[str] | None = None,
    errors: Tensor | Mapping[str, Tensor] | None = None,
    *,
    top: int = 10,
    axes: Axes | None = None,
) -> Figure:
    """Horizontal bars of one row's attributions, the largest on top.

    Args:
        values: ``(M,)``, or several methods' by name, drawn side by side; the order is that of the first.
        names: M names of the players; their numbers by default.
        errors: how far each value may be off, ``(M,)``, or by method: drawn as error bars.
        top: how many players to show.
        axes: where to draw; a new figure by default.

    Raises:
        ValueError: if the numbers of values, names and errors differ.

    >>> figure = bars(torch.tensor([0.2, -0.7]), ["age", "income"], errors=torch.tensor([0.05, 0.1]))
    >>> [label.get_text() for label in figure.axes[0].get_yticklabels()]
    ['age', 'income']
    """
    methods = _by_method(values)
    spans = {} if errors is None else _by_method(errors)
    n_players = len(next(iter(methods.values())))
    names = [f"feature {i}" for i in range(n_players)] if names is None else list(names)
    for what, length in [("names", len(names)), *((f"values of {m!r}", len(v)) for m, v in (methods | spans).items())]:
        if length != n_players:
            raise ValueError(f"There are {length} {what} for {n_players} players: pass one for each.")
    order = next(iter(methods.values())).abs().argsort(descending=True)[:top].flip(0)
    axes = axes or new_axes(height=1 + 0.35 * len(order) * max(1.0, 0.6 * len(methods)))
    height = 0.8 / len(methods)
    colours = _bar_colours(list(methods))
    for index, (name, row) in enumerate(methods.items()):
        places = [place + 0.4 - (index + 0.5) * height for place in range(len(order))]
        span = spans[name][order].tolist() if name in spans else None
        style: dict[str, Any] = {"color": colours[index], "label": name, "error_kw": {"ecolor": "black", "capsize": 2}}
        axes.barh(places, row[order].tolist(), 0.9 * height, xerr=span, **style)
    axes.set_yticks(range(len(order)), [names[int(i)] for i in order])
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_xlabel("attribution")
    axes.spines[["top", "right", "left"]].set_visible(False)
    if len(methods) > 1:
        axes.legend(frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1))
    return figure_of(axes)


def image(
    attributions: Tensor,
    picture: Tensor,
    feature_mask: Tensor | None = None,
    errors: Tensor | None = None,
    *,
    axes: Axes | None = None,
) -> Figure:
    """An image in grey under its attributions, with the contours of its superpixels.

    Args:
        attributions: ``(C, H, W)``, summed over the channels, or ``(H, W)``; with a mask each pixel has its superpixel's.
        picture: ``(C, H, W)`` or ``(H, W)``, of any range.
        feature_mask: the superpixels, ``(H, W)`` or ``(1, H, W)``: their borders are drawn.
        errors: how far each value may be off, of the attributions' shape: pixels whose sign is open are hatched.
        axes: where to draw; a new figure by default.

    Raises:
        ValueError: if the sizes differ.

    >>> figure = image(torch.randn(3, 8, 8), torch.rand(3, 8, 8), torch.arange(64).reshape(8, 8) // 16)
    """
    total = _by_pixel(attributions, feature_mask is not None)
    grey = picture.detach().double().cpu().reshape(-1, *picture.shape[-2:]).mean(0)
    if errors is not None and errors.shape != attributions.shape:
        raise ValueError(
            f"errors have shape {tuple(errors.shape)} and attributions {tuple(attributions.shape)}: pass both of one shape."
        )
    if total.shape != grey.shape:
        raise ValueError(
            f"attributions are {tuple(total.shape)} pixels and the picture {tuple(grey.shape)}: pass both of one size."
        )
    axes = axes or new_axes(5.5, 4.5)
    axes.imshow(grey, cmap="gray")
    limit = float(total.abs().max()) or 1.0
    shades = axes.imshow(total, cmap=_SIGNS, vmin=-limit, vmax=limit, alpha=0.65)
    if feature_mask is not None:
        _contours(feature_mask.detach().cpu().reshape(-1, *grey.shape)[0], axes)
    if errors is not None:
        hatch_open_signs(total, _by_pixel(errors, feature_mask is not None), axes)
    axes.set_axis_off()
    figure = figure_of(axes)
    figure.colorbar(shades, ax=axes, label="attribution", shrink=0.8)
    return figure


class TokenHeatMap(str):
    """HTML of coloured tokens; a notebook shows it as such."""

    def _repr_html_(self) -> str:
        return str(self)


def tokens(values: Tensor, words: Sequence[str], errors: Tensor | None = None) -> TokenHeatMap:
    """A text with each token on the colour of its attribution, as HTML; the pointer over a token shows the number.

    Args:
        values: ``(M,)``, one for each token.
        words: the M tokens; spaces within them are kept.
        errors: how far each value may be off, ``(M,)``: shown with the number, and framed where the sign is open.

    Raises:
        ValueError: if their numbers differ.

    >>> tokens(torch.tensor([1.0, -0.5]), ["not", "bad"]).count("<span")
    2
    """
    widths = torch.zeros_like(values) if errors is None else errors
    if not values.shape == widths.shape == (len(words),):
        raise ValueError(f"There are {len(words)} tokens for values of shape {tuple(values.shape)}: pass one for each.")
    limit = float(values.abs().max()) or 1.0
    unsure, spans = open_signs(values, widths), []
    for value, error, word, is_open in zip(values.tolist(), widths.tolist(), words, unsure.tolist(), strict=True):
        red, green, blue, _ = plt.get_cmap(_SIGNS)(0.5 + 0.35 * value / limit)
        shade = f"rgb({255 * red:.0f},{255 * green:.0f},{255 * blue:.0f})"
        style = f"background:{shade};color:black;padding:2px 3px;border-radius:3px;white-space:pre-wrap"
        style += ";outline:1px dashed" if is_open else ""
        tooltip = f"{value:+.3g}" + (f" ± {error:.2g}" if errors is not None else "")
        spans.append(f'<span style="{style}" title="{tooltip}">{escape(word)}</span>')
    legend = f"<br><small>dashed: {OPEN_SIGN}</small>" if bool(unsure.any()) else ""
    return TokenHeatMap(f'<div style="line-height:2">{" ".join(spans)}{legend}</div>')


def beeswarm(explanation: shap.Explanation, *, top: int = 10, axes: Axes | None = None) -> Figure:
    """shap's beeswarm of many rows: one dot per row and feature, coloured by the feature's value.

    Args:
        explanation: of :func:`captum_meta.export.to_shap` or of ``MetaShapExplainer``. With ``errors=`` of the former, a
            grey band behind each feature tells how far from zero a dot must be for its sign to be sure.
        top: how many features to show.
        axes: where to draw; a new figure by default.
    """
    axes = axes or new_axes(height=1.5 + 0.4 * top)
    _shap_plots().beeswarm(explanation, max_display=top, ax=axes, plot_size=None, show=False, group_remaining_features=False)
    if explanation.upper_bounds is not None:
        band_typical_widths(explanation, axes)
    return figure_of(axes)


def waterfall(explanation: shap.Explanation, *, top: int = 10, axes: Axes | None = None) -> Figure:
    """shap's waterfall of one row: from the base value to the model's output, one feature after the other.

    Args:
        explanation: one row of an explanation, such as ``to_shap(...)[0]``. The intervals of ``to_shap(..., errors=)`` are
            lines around the ends of the arrows.
        top: how many features to show.
        axes: where to draw; a new figure by default.
    """
    axes = axes or new_axes(height=1.5 + 0.4 * top)
    plt.sca(axes)
    _shap_plots().waterfall(explanation, max_display=top, show=False)
    if explanation.upper_bounds is not None:
        axes.set_xlabel("lines: the attribution's interval", labelpad=18)
    figure = figure_of(axes)
    plt.close(figure)
    return figure


def interaction_network(interactions: Tensor, names: Sequence[str] | None = None) -> Figure:
    """shapiq's network of one row: features on a circle, and between them how much they add together.

    Args:
        interactions: ``(M, M)``, a row of what ``interactions`` of a Shapley front end returns.
        names: M names of the players; their numbers by default.

    The figure is shapiq's own, which cannot draw into other axes.
    """
    from captum_meta.export import to_shapiq

    figure, _ = to_shapiq(interactions, 0.0).plot_network(show=False, feature_names=None if names is None else list(names))
    plt.close(figure)
    return cast(Figure, figure)


def _by_pixel(values: Tensor, grouped: bool) -> Tensor:
    """``(H, W)``: sums over the channels, or of superpixels, whose value stands in each channel, the value."""
    values = values.detach().double().cpu()
    if values.ndim == 3 and not grouped:
        return values.sum(0)
    return values.reshape(-1, *values.shape[-2:]).mean(0)


def _by_method(values: Tensor | Mapping[str, Tensor]) -> dict[str, Tensor]:
    methods = dict(values) if isinstance(values, Mapping) else {"": values}
    return {name: row.detach().double().cpu().flatten() for name, row in methods.items()}


def _bar_colours(methods: Sequence[str]) -> list[str]:
    greys = cycle([_BAR, "#B0B0B0", "#7F7F7F"])
    return [next(greys) if method_colour(name) == PEER else method_colour(name) for name in methods]


def _contours(mask: Tensor, axes: Axes) -> None:
    """Lines between neighbouring pixels of different superpixels."""
    below, right = (mask[1:] != mask[:-1]).nonzero(), (mask[:, 1:] != mask[:, :-1]).nonzero()
    style: dict[str, Any] = {"color": "black", "linewidth": 0.6, "alpha": 0.6}
    axes.hlines(below[:, 0] + 0.5, below[:, 1] - 0.5, below[:, 1] + 0.5, **style)
    axes.vlines(right[:, 1] + 0.5, right[:, 0] - 0.5, right[:, 0] + 0.5, **style)


def _shap_plots() -> Any:
    from captum_meta.export import imported

    return imported("shap", "captum_meta.visualization").plots
