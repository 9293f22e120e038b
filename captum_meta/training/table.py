"""Tables of numbers, read from csv and parquet files."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from captum_meta.training.attribution_files import require_parquet


@dataclass(frozen=True)
class NumberTable:
    """Rows of features.

    Attributes:
        values: ``(N, E)`` float32.
        columns: E names.
        rows: what the rows are called, N; their numbers where no column names them.
    """

    values: Tensor
    columns: list[str]
    rows: list[Any]


def read_table(path: Path, columns: Sequence[str] | None, names: str | None) -> NumberTable:
    """Read a .csv file with a header, or a .parquet file.

    Args:
        path: of the file.
        columns: features, in this order; by default all columns but ``names``.
        names: the column that names the rows, if any.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has another ending, no rows, lacks a column, or a feature is no number.
    """
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: pass a .csv or .parquet file of rows.")
    if path.suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path} ends in {path.suffix!r}: pass a .csv or .parquet file of rows.")
    found = _of_csv(path) if path.suffix == ".csv" else _of_parquet(path)
    wanted = [name for name in found if name != names] if columns is None else list(columns)
    for name in [*wanted, *([] if names is None else [names])]:
        if name not in found:
            raise ValueError(f"{path} has no column {name!r}: it has {', '.join(found)}.")
    if not wanted or not len(found[wanted[0]]):
        raise ValueError(f"{path} has no rows of features: pass a table with at least one.")
    values = torch.tensor([_numbers(name, found[name], path) for name in wanted], dtype=torch.float32).T.contiguous()
    called = list(range(len(values))) if names is None else list(found[names])
    return NumberTable(values, wanted, called)


def _of_csv(path: Path) -> dict[str, Sequence[Any]]:
    with path.open(newline="") as file:
        reader = csv.reader(file)
        header = next(reader, [])
        rows = [row for row in reader if row]
    for number, row in enumerate(rows):
        if len(row) != len(header):
            raise ValueError(f"Row {number} of {path} has {len(row)} entries for {len(header)} columns.")
    return {name: [row[place] for row in rows] for place, name in enumerate(header)}


def _of_parquet(path: Path) -> dict[str, Sequence[Any]]:
    frame = require_parquet().read_parquet(path)
    return {str(name): frame[name].tolist() for name in frame.columns}


def _numbers(name: str, values: Sequence[Any], path: Path) -> list[float]:
    try:
        return [float("nan") if value in ("", None) else float(value) for value in values]
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Column {name!r} of {path} is not made of numbers ({error}): name the features with --columns, or the rows "
            "with --id."
        ) from error
