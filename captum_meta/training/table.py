"""Tables of numbers, read from csv, parquet and feather files."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_meta.training.attribution_files import require_parquet

_ENDINGS = (".csv", ".parquet", ".feather")
_ROWS = 16384
"""Rows of a csv file held as text at once."""


@dataclass(frozen=True)
class NumberTable:
    """Rows of features.

    Attributes:
        values: ``(N, E)`` float32, NaN where a number is missing.
        columns: E names.
        rows: names of the rows, N; their indices where no column names them.
    """

    values: Tensor
    columns: list[str]
    rows: Sequence[Any]


def read_table(
    path: Path, columns: Sequence[str] | None, names: str | None = None, leave_out: Sequence[str] = ()
) -> NumberTable:
    """Read a .csv file with a header, or a .parquet or .feather file.

    Args:
        path: of the file.
        columns: features, in this order; by default all columns but ``names`` and ``leave_out``.
        names: the column that names the rows, if any.
        leave_out: columns that are no features.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has another ending or cannot be read, has no rows, lacks a column, has two of one name, or a
            feature is no number.
    """
    found = _header(path)
    wanted = [name for name in found if name not in (names, *leave_out)] if columns is None else list(columns)
    for name in [*wanted, *([] if names is None else [names])]:
        if name not in found:
            raise ValueError(f"{path} has no column {name!r}: it has {', '.join(found)}.")
    numbers, text = _read(path, wanted, [] if names is None else [names])
    if not numbers or not len(numbers[wanted[0]]):
        raise ValueError(f"{path} has no rows of features: pass a table with at least one.")
    broken = [f"{name!r} ({value!r})" for name, value in numbers.items() if not isinstance(value, np.ndarray)]
    if broken:
        raise ValueError(
            f"{path} has columns that are not made of numbers: {', '.join(broken)}. Name the features with --columns, the "
            "column that names the rows with --id, or write categories as the numbers that the model takes."
        )
    values = torch.from_numpy(np.stack([numbers[name] for name in wanted], axis=1))
    return NumberTable(values, wanted, range(len(values)) if names is None else text[names])


def read_classes(path: Path, column: str) -> Tensor:
    """Index of the output to be explained of each row, ``(N,)`` int64, from a column of whole numbers.

    Raises:
        ValueError: if there is no such column, or it holds anything else.
    """
    found = _header(path)
    if column not in found:
        raise ValueError(f"--target is {column!r}: pass the index of an output, or a column of {path}: {', '.join(found)}.")
    numbers = _read(path, [column], [])[0][column]
    broken: Any = numbers
    if isinstance(numbers, np.ndarray):
        with np.errstate(invalid="ignore"):
            wrong = ~np.isfinite(numbers) | (numbers != np.floor(numbers))
        if not wrong.any():
            return torch.from_numpy(numbers).long()
        broken = float(numbers[wrong][0])
    raise ValueError(
        f"Column {column!r} of {path} holds {broken!r}: a target is the number of the output to be explained, 0, 1, 2, ... "
        "Pass one number as --target, or a column of them."
    )


def read_cells(path: Path) -> dict[str, list[Any]]:
    """All columns as they are, words included: text of a csv file, entries of any other.

    Raises:
        FileNotFoundError: if there is no such file.
        ValueError: if it has another ending or cannot be read, or has two columns of one name.
    """
    return _read(path, [], _header(path))[1]


def _header(path: Path) -> list[str]:
    if not path.is_file():
        raise FileNotFoundError(f"There is no file {path}: pass a {_known_endings()} file of rows.")
    if path.suffix not in _ENDINGS:
        raise ValueError(f"{path} ends in {path.suffix!r}: pass a {_known_endings()} file of rows.")
    names = next(_lines(path), []) if path.suffix == ".csv" else [str(name) for name in _frame(path).columns]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise ValueError(f"{path} has two columns called {', '.join(map(repr, twice))}: give each a name of its own.")
    return names


def _known_endings() -> str:
    return f"{', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}"


def _read(path: Path, numbers: Sequence[str], text: Sequence[str]) -> tuple[dict[str, Any], dict[str, list[Any]]]:
    """Columns of numbers as arrays ``(N,)``, or the first entry that is none; and other columns as they are."""
    if path.suffix != ".csv":
        frame = _frame(path)
        frame.columns = [str(name) for name in frame.columns]
        return {name: _as_numbers(frame[name]) for name in numbers}, {name: frame[name].tolist() for name in text}
    parts: dict[str, list[Any]] = {name: [] for name in numbers}
    called: dict[str, list[Any]] = {name: [] for name in text}
    for chunk in _chunks(path):
        for name in numbers:
            parts[name].append(_as_numbers(chunk[name]))
        for name in text:
            called[name] += chunk[name]
    found = {}
    for name, some in parts.items():
        broken = [part for part in some if not isinstance(part, np.ndarray)]
        found[name] = broken[0] if broken else np.concatenate([np.zeros(0, np.float32), *some])
    return found, called


def _lines(path: Path) -> Iterator[list[str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        try:
            yield from (row for row in csv.reader(file) if row)
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not text in UTF-8 ({error.reason}): save it as UTF-8, or as parquet.") from error


def _chunks(path: Path) -> Iterator[dict[str, list[str]]]:
    lines = _lines(path)
    header, done = next(lines, []), 0
    while rows := list(islice(lines, _ROWS)):
        for number, row in enumerate(rows, start=done):
            if len(row) != len(header):
                raise ValueError(
                    f"Row {number} of {path} has {len(row)} entries for {len(header)} columns: mend it, or take it out."
                )
        done += len(rows)
        yield {name: [row[index] for row in rows] for index, name in enumerate(header)}


def _frame(path: Path) -> Any:
    pandas = require_parquet()
    try:
        return pandas.read_parquet(path) if path.suffix == ".parquet" else pandas.read_feather(path)
    except (ValueError, OSError) as error:  # pyarrow's own errors are kinds of these
        raise ValueError(f"{path} cannot be read as a {path.suffix} file ({error}): write it again.") from error


def _as_numbers(values: Any) -> Any:
    """float32 ``(N,)``, NaN for what is missing; or the first entry that is no number."""
    if getattr(values, "dtype", None) is not None and values.dtype.kind in "biuf":
        return values.to_numpy(dtype=np.float32, na_value=np.nan)
    numbers = np.empty(len(values), dtype=np.float32)
    with np.errstate(over="ignore"):
        for index, value in enumerate(values):
            try:
                numbers[index] = np.nan if value is None or str(value) in ("", "<NA>") else float(value)
            except (TypeError, ValueError):
                return value
    return numbers
