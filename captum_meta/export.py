"""Attributions and interactions in the forms that other libraries expect.

Captum's own ``visualize_image_attr``, ``visualize_text`` and ``visualize_timeseries_attr`` take our attributions as they
are (the last one, of Captum 0.9.0, wants matplotlib below 3.9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from captum_meta._captum import format_tensor_into_tuples
from captum_meta.evidence import Players

if TYPE_CHECKING:
    import pandas
    import shap
    import shapiq

Tensors = Tensor | tuple[Tensor, ...]


def to_shap(
    attributions: Tensors,
    inputs: Tensors | pandas.DataFrame,
    base_values: Tensor | float | Callable[..., Any],
    feature_names: Sequence[str] | None = None,
    feature_mask: Tensors | None = None,
    errors: Tensors | None = None,
) -> shap.Explanation:
    """Attributions as a ``shap.Explanation``, for shap's beeswarm, waterfall, bar, scatter and force plots.

    Args:
        attributions: ``(N, *features)``, or values of a feature mask's groups, ``(N, M)`` or in the columns of their ids.
        inputs: what was explained, ``(N, *features)``; a group is shown with the mean of its inputs. Or the DataFrame that
            it came from, whose columns are the names. A DataFrame with other columns than numbers has one column for each
            player, such as a category that was explained as a group of one-hot columns; its entries are shown.
        base_values: the output at the baselines, one number or ``(N,)``; attributions are added to it. Or the explained
            function, which gives ``(N,)`` for the inputs as tensors (for a DataFrame with other columns than numbers: for
            this DataFrame). The base values are then what the attributions leave of it.
        feature_names: M names, in the order of the features (of the groups' ids, with a mask).
        feature_mask: as it was given to ``attribute``; the same for all rows.
        errors: half-widths of intervals around the attributions, in their shapes, as
            ``CalibratedAttribution.attribute(..., return_error_bound="players")`` returns them: the explanation's
            ``lower_bounds`` and ``upper_bounds``, which shap's waterfall draws.

    Raises:
        ImportError: if shap is not installed.
        ValueError: if shapes or the number of names do not fit.

    >>> x = torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> to_shap(2 * x, x, base_values=0.5, feature_names=["a", "b"]).base_values.tolist()
    [0.5, 0.5]
    """
    shap = imported("shap", "to_shap")
    tensors, feature_names = _numbers_and_names(inputs, feature_names, feature_mask)
    values, names = _columns(attributions, tensors, feature_names, feature_mask)
    frame: Any = inputs if _is_encoded(inputs) else None
    data = _by_player(tensors, _players(tensors, feature_mask)).numpy() if frame is None else frame.to_numpy()
    if callable(base_values):
        with torch.no_grad():
            outputs = base_values(*format_tensor_into_tuples(tensors)) if frame is None else base_values(frame)
            base_values = torch.as_tensor(outputs).double().cpu().flatten() - values.sum(1)
    base = torch.as_tensor(base_values).detach().double().cpu().flatten()
    if len(base) not in (1, len(values)):
        raise ValueError(
            f"base_values has {len(base)} entries for {len(values)} rows: pass one number, or one for each row."
        )
    ends = {}
    if errors is not None:
        widths, _ = _columns(errors, tensors, feature_names, feature_mask)
        ends = {"lower_bounds": (values - widths).numpy(), "upper_bounds": (values + widths).numpy()}
    return shap.Explanation(
        values=values.numpy(), base_values=base.expand(len(values)).numpy(), data=data, feature_names=names, **ends
    )


def imported(module: str, needed_by: str, package: str | None = None) -> Any:
    """A module that is not always there; ``ImportError`` that says what to install."""
    try:
        return import_module(module)
    except ImportError as error:
        name = module.partition(".")[0]
        raise ImportError(f"{needed_by} needs {name}, which is not installed: pip install {package or name}.") from error


def to_shapiq(
    interactions: Tensor, base_value: Tensor | float, index: str = "k-SII", *, estimated: bool = True
) -> shapiq.InteractionValues:
    """Interactions of one row as ``shapiq.InteractionValues``, for shapiq's network, upset, force and other plots.

    Args:
        interactions: ``(M, M)``, a row of what ``interactions`` of a front end returns.
        base_value: the output at the baseline, or the mean over background rows; one number.
        index: the one that was asked for.
        estimated: False where all coalitions were evaluated.

    Raises:
        ImportError: if shapiq is not installed.
        ValueError: if ``interactions`` is not square, or ``base_value`` is more than one number.

    >>> to_shapiq(torch.tensor([[1.0, 2.0], [2.0, 0.5]]), base_value=0.25).get_n_order(2).interactions
    {(0, 1): 2.0}
    """
    shapiq = imported("shapiq", "to_shapiq")
    if interactions.dim() != 2 or interactions.shape[0] != interactions.shape[1]:
        raise ValueError(
            f"interactions have shape {tuple(interactions.shape)}: pass those of one row, (M, M), such as interactions[0]."
        )
    base = torch.as_tensor(base_value).detach().double().cpu().flatten()
    if len(base) != 1:
        raise ValueError(f"base_value has {len(base)} entries for one row: pass one number.")
    matrix, count = interactions.detach().double().cpu().tolist(), len(interactions)
    values: dict[tuple[int, ...], float] = {(): float(base)}
    values |= {(i, j) if i < j else (i,): matrix[i][j] for i in range(count) for j in range(i, count)}
    return shapiq.InteractionValues(
        values,
        index=index,
        min_order=0,
        max_order=2,
        n_players=count,
        baseline_value=float(base),
        estimated=estimated,
    )


def to_pandas(
    attributions: Tensors,
    inputs: Tensors | pandas.DataFrame,
    feature_names: Sequence[str] | None = None,
    feature_mask: Tensors | None = None,
) -> pandas.DataFrame:
    """Attributions as a table, a row for each example and a column for each player.

    Arguments and errors: :func:`to_shap`. A DataFrame's columns and index come back.

    >>> x = torch.tensor([[1.0, 2.0]])
    >>> to_pandas(2 * x, x, ["a", "b"]).to_dict("records")
    [{'a': 2.0, 'b': 4.0}]
    """
    pandas = imported("pandas", "to_pandas")
    index = inputs.index if isinstance(inputs, pandas.DataFrame) else None
    tensors, feature_names = _numbers_and_names(inputs, feature_names, feature_mask)
    values, names = _columns(attributions, tensors, feature_names, feature_mask)
    return pandas.DataFrame(values.numpy(), columns=names, index=index)


def _numbers_and_names(
    inputs: Tensors | pandas.DataFrame, feature_names: Sequence[str] | None, feature_mask: Tensors | None
) -> tuple[Tensors, Sequence[str] | None]:
    """Tensors as they are; a DataFrame as a tensor, and its columns where there are no other names.

    Of a DataFrame that was encoded, only the shape of the encoding is known: zeros stand for it.
    """
    if isinstance(inputs, (Tensor, tuple)):
        return inputs, feature_names
    names = list(inputs.columns) if feature_names is None else feature_names
    if not _is_encoded(inputs):
        return torch.tensor(inputs.to_numpy(dtype="float64")), names
    width = inputs.shape[1] if feature_mask is None else format_tensor_into_tuples(feature_mask)[0].shape[-1]
    return torch.zeros(len(inputs), width), names


def _is_encoded(inputs: Any) -> bool:
    """Whether this is a DataFrame with other columns than numbers, which no model takes as it is."""
    return hasattr(inputs, "dtypes") and any(kind.kind not in "biuf" for kind in inputs.dtypes)


def _columns(
    attributions: Tensors, inputs: Tensors, feature_names: Sequence[str] | None, feature_mask: Tensors | None
) -> tuple[Tensor, list[str]]:
    """One column of attributions for each player, ``(N, M)``, and their names."""
    players = _players(inputs, feature_mask)
    parts = format_tensor_into_tuples(attributions)
    shapes = tuple(part.shape for part in format_tensor_into_tuples(inputs))
    if tuple(part.shape for part in parts) == shapes:
        values = _by_player(attributions, players)
    elif len(parts) == 1 and tuple(parts[0].shape) in {(shapes[0][0], n) for n in (players.count, players.width)}:
        values = players.from_ids(parts[0].detach()).double().cpu()
    else:
        raise ValueError(
            f"attributions have shapes {[tuple(part.shape) for part in parts]}: pass them in the inputs' shapes "
            f"{[tuple(shape) for shape in shapes]}, or as {(shapes[0][0], players.count)}, one value for each player."
        )
    names = list(feature_names) if feature_names is not None else [f"feature {i}" for i in range(players.count)]
    if len(names) != players.count:
        raise ValueError(f"There are {len(names)} feature_names for {players.count} players: pass one for each.")
    return values, names


def _players(inputs: Tensors, feature_mask: Tensors | None) -> Players:
    masks = None if feature_mask is None else format_tensor_into_tuples(feature_mask)
    players = Players.of(format_tensor_into_tuples(inputs), masks)
    if len(players.mask) > 1:
        raise ValueError("feature_mask differs between rows, so players have no columns: export rows one at a time.")
    return players


def _by_player(tensors: Tensors, players: Players) -> Tensor:
    """Each player's mean over its elements, ``(N, M)`` float64 on the CPU."""
    parts: tuple[Any, ...] = format_tensor_into_tuples(tensors)
    sizes = players.collect(tuple(torch.ones_like(part, dtype=torch.float64) for part in parts))
    return (players.collect(tuple(part.detach().double() for part in parts)) / sizes).cpu()
