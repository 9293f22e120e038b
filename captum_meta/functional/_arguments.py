"""Reading the arguments that all metrics share: tensors or tuples, rows of them, and the last reduction."""

from __future__ import annotations

from typing import Any, Literal

import torch
from jaxtyping import Float, Int64
from torch import Tensor

Tensors = Tensor | tuple[Tensor, ...]
Reduction = Literal["mean", "sum", "none"]


def as_tuple(tensors: Tensors, name: str) -> tuple[Tensor, ...]:
    """``tensors`` as a tuple whose entries have the same number of rows."""
    parts = tensors if isinstance(tensors, tuple) else (tensors,)
    if not parts or not all(isinstance(part, Tensor) for part in parts):
        raise TypeError(f"{name} is a {type(tensors).__name__}: pass a tensor, or a tuple of tensors, as to Captum.")
    if any(part.dim() == 0 or len(part) != len(parts[0]) for part in parts):
        shapes = [tuple(part.shape) for part in parts]
        raise ValueError(f"{name} has shapes {shapes}; pass tensors (B, *features) with the same number B of rows.")
    if len(parts[0]) == 0:
        raise ValueError(f"{name} has no rows, so there is nothing to measure: pass at least one.")
    return parts


def widen(tensor: Tensor) -> Tensor:
    """Half precision and integers as float32; float64 stays."""
    return tensor.detach() if tensor.dtype == torch.float64 else tensor.detach().float()


def flatten(tensors: Tensors, name: str) -> Float[Tensor, "B D"]:
    """All tensors of a row side by side, ``(B, D)``, at least in single precision and without NaN."""
    parts = as_tuple(tensors, name)
    flat = torch.cat([widen(part).flatten(1) if part.dim() > 1 else widen(part).unsqueeze(1) for part in parts], 1)
    check_finite(flat, name)
    return flat


def check_finite(values: Float[Tensor, " B *rest"], name: str, rows_of: Int64[Tensor, " B"] | None = None) -> None:
    """Raise where a row of ``values`` ``(B, ...)`` is not finite, and name it by ``rows_of`` ``(B,)``."""
    finite = values.flatten(1).isfinite().all(1) if values.dim() > 1 else values.isfinite()
    if not finite.all():
        indices = (~finite).nonzero().flatten()
        rows = (indices if rows_of is None else rows_of[indices]).unique().tolist()
        raise ValueError(
            f"{name} is NaN or infinite in rows {rows[:8]}{'...' if len(rows) > 8 else ''}, so a metric of them would "
            "be too: leave these rows out, or look for the overflow in the explained model or its inputs."
        )


def check_count(value: int, name: str) -> None:
    """Raise where ``value`` is not at least 1."""
    if value < 1:
        raise ValueError(f"{name} is {value}, which leaves nothing to do: pass at least 1.")


def take_rows(value: Any, rows: Int64[Tensor, " R"], n_rows: int) -> Any:
    """``value[rows]`` for whatever has one entry per row, in tuples too; anything else as it is."""
    if isinstance(value, Tensor):
        return value[rows] if value.dim() > 0 and len(value) == n_rows else value
    if isinstance(value, list):
        return [value[row] for row in rows.tolist()] if len(value) == n_rows else value
    if isinstance(value, tuple):
        return tuple(take_rows(entry, rows, n_rows) for entry in value)
    return value


def reduce(values: Float[Tensor, " B"], reduction: str) -> Float[Tensor, "*reduced"]:
    """The mean or sum of ``values`` ``(B,)``, or the values themselves."""
    if reduction == "none":
        return values
    if reduction == "mean":
        return values.mean()
    if reduction == "sum":
        return values.sum()
    raise ValueError(f"reduction is {reduction!r}: pass 'mean', 'sum' or 'none'.")
