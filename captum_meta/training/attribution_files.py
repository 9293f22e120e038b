"""Explanations of a table on disk: a file for each batch, and a manifest."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from os import PathLike
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from captum_meta._files import write_whole

Format = Literal["safetensors", "parquet"]
MANIFEST = "manifest.json"
VERSION = 1
_NOTES = "notes"


def file_of(folder: Path, number: int, form: Format) -> Path:
    """Path of a batch's explanations."""
    return folder / f"batch-{number:08d}.{form}"


def files_in(folder: Path, form: Format) -> list[Path]:
    """The batches on disk, in the order of the rows."""
    return sorted(folder.glob(f"batch-*.{form}"))


def write_batch(
    path: Path, values: Mapping[str, Tensor], rows: Sequence[Any], errors: Mapping[int, str], columns: Sequence[str] | None
) -> None:
    """Write a batch whole or not at all.

    Args:
        path: whose ending is the format.
        values: by name, ``(B, ...)``.
        rows: names of the rows.
        errors: errors of rows, by index in the batch.
        columns: names of the attributions' columns, for parquet.
    """
    if path.suffix == ".parquet":
        write_whole(path, _parquet(values, rows, errors, columns))
        return
    contiguous = {name: value.contiguous() for name, value in values.items()}
    notes = {"rows": list(rows), "errors": {str(place): text for place, text in errors.items()}}
    write_whole(path, save(contiguous, {_NOTES: json.dumps(notes)}))  # of several entries the order would be random


def _parquet(
    values: Mapping[str, Tensor], rows: Sequence[Any], errors: Mapping[int, str], columns: Sequence[str] | None
) -> bytes:
    pandas = require_parquet()
    table: dict[str, Any] = {"row": list(rows)}
    for name, value in values.items():
        if name.startswith("attributions"):
            flat = value.flatten(1)
            names = columns if columns is not None else [f"{name}[{place}]" for place in range(flat.shape[1])]
            table.update(zip(names, flat.T.numpy(), strict=True))
        else:
            table[name] = value.numpy()
    table["error"] = pandas.array([errors.get(place) for place in range(len(rows))], dtype="string")
    buffer = io.BytesIO()
    pandas.DataFrame(table).to_parquet(buffer, index=False)
    return buffer.getvalue()


def read_batch(path: Path) -> tuple[dict[str, Tensor], list[Any], dict[int, str]]:
    """Read what :func:`write_batch` wrote as safetensors: values, rows and errors."""
    with safe_open(path, "pt") as file:
        notes = json.loads(file.metadata()[_NOTES])
        values = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    return values, notes["rows"], {int(place): text for place, text in notes["errors"].items()}


def errors_in(path: Path) -> list[dict[str, Any]]:
    """Rows of a batch that raised, with their errors."""
    if path.suffix == ".parquet":
        table = require_parquet().read_parquet(path, columns=["row", "error"])
        broken = table[table["error"].notna()]
        return [{"row": row, "error": text} for row, text in zip(broken["row"].tolist(), broken["error"], strict=True)]
    _, rows, errors = read_batch(path)
    return [{"row": rows[place], "error": text} for place, text in sorted(errors.items())]


def read_attributions(folder: str | PathLike[str]) -> dict[str, Tensor]:
    """All that :class:`AttributionWriter` wrote to a folder as safetensors, by name, in the order of the rows.

    Raises:
        FileNotFoundError: if there are no explanations.
    """
    parts = [read_batch(path)[0] for path in files_in(Path(folder), "safetensors")]
    if not parts:
        raise FileNotFoundError(f"There are no batch-*.safetensors in {folder}: pass a folder of an AttributionWriter.")
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def each_attributions(folder: Path, form: Format, columns: Sequence[str] | None) -> Iterator[Tensor]:
    """Attributions ``(B, elements)`` and nothing else, a batch at a time, NaN for rows that raised."""
    for path in files_in(folder, form):
        if form == "parquet":
            table = require_parquet().read_parquet(path)
            names = list(columns) if columns is not None else [n for n in table.columns if n.startswith("attributions")]
            yield torch.from_numpy(table[names].to_numpy(dtype="float64", copy=True))
        else:
            values = read_batch(path)[0]
            yield torch.cat([part.flatten(1) for name, part in values.items() if name.startswith("attributions")], dim=1)


def write_manifest(folder: Path, content: Mapping[str, Any]) -> None:
    """Write the manifest whole."""
    write_whole(folder / MANIFEST, (json.dumps(content, indent=2) + "\n").encode())


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a folder, if there is one."""
    path = folder / MANIFEST
    return json.loads(path.read_text()) if path.is_file() else None


def described(value: Any) -> Any:
    """An argument as JSON can hold it: tensors by shape and checksum."""
    if isinstance(value, Tensor):
        content = value.detach().cpu().contiguous()
        return f"tensor{tuple(value.shape)} {sha256(content.numpy().tobytes()).hexdigest()[:16]}"
    if isinstance(value, (tuple, list)):
        return [described(part) for part in value]
    return value if isinstance(value, (int, float, str, bool, type(None))) else repr(type(value).__name__)


def settings_of(method: Any) -> str | None:
    """A method's description of itself, such as its learner and how many rows it is adapted to; None where it has none."""
    return repr(method) if type(method).__repr__ is not object.__repr__ else None


def require_parquet() -> Any:
    """The module pandas; ``ImportError`` that says what to install."""
    try:
        import pandas
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError("Parquet files need pandas and pyarrow: pip install 'captum-meta[tables]'.") from error
    return pandas
