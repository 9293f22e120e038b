"""A table with words and gaps, as numbers for a classifier."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_meta.training.table import NumberTable, read_cells


def read_labelled(path: Path, label: str, most_words: int = 50) -> tuple[NumberTable, Tensor]:
    """Read a .csv, .parquet or .feather file for a classifier: its features as numbers, and its classes.

    A missing number is the mean of its column. A word is the share of the most frequent class among the rows that have it
    (target encoding: Micci-Barreca 2001), a missing word alike. Columns of more than ``most_words`` different words, such as
    names, are left out, and so are rows without a label.

    Args:
        path: of the file.
        label: the column that says the class of each row, as numbers or words.
        most_words: see above.

    Returns:
        The features, and the classes ``(N,)`` as numbers from 0 on.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has another ending or no such column, or does not have 2 to 50 classes.
    """
    found = read_cells(path)
    if label not in found:
        raise ValueError(f"{path} has no column {label!r} to predict: pass --label one of {', '.join(found)}.")
    kept = [row for row, value in enumerate(found[label]) if not _is_missing(value)]
    labels = [str(found[label][row]) for row in kept]
    classes = sorted(set(labels))
    if not 2 <= len(classes) <= 50:
        raise ValueError(f"The column {label!r} has {len(classes)} different values: pass a column of 2 to 50 classes.")
    y = torch.tensor([classes.index(value) for value in labels])
    most = (y == y.mode().values).float()
    columns = {}
    for name, values in found.items():
        numbers = None if name == label else _encoded([values[row] for row in kept], most, most_words)
        if numbers is not None:
            columns[name] = numbers
    if not columns:
        raise ValueError(f"{path} has no columns of features beside {label!r}: pass a table with at least one.")
    return NumberTable(torch.stack(list(columns.values()), 1), list(columns), kept), y


def _encoded(values: Sequence[Any], share_of: Tensor, most_words: int) -> Tensor | None:
    """A column as numbers without gaps; None where it has too many words."""
    try:
        numbers = torch.tensor([float("nan") if _is_missing(value) else float(value) for value in values])
    except (TypeError, ValueError):
        words = ["" if _is_missing(value) else str(value) for value in values]
        if len(set(words)) > most_words:
            return None
        rows_of = {word: [row for row, other in enumerate(words) if other == word] for word in set(words)}
        shares = {word: float(share_of[rows].mean()) for word, rows in rows_of.items()}
        return torch.tensor([shares[word] for word in words])
    return numbers.nan_to_num(float(numbers.nanmean().nan_to_num()))


def _is_missing(value: Any) -> bool:
    """An empty cell of a csv file; None, NaN or NA of other files."""
    return value is None or str(value) in ("", "nan", "NaN", "<NA>", "NaT")
