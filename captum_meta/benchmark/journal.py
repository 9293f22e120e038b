"""Results kept as JSON lines while they come, so that a stopped run is taken up where it stopped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, TypeVar

Result = TypeVar("Result", bound=Any)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The entries of a journal; a last line that was only half written when a run was killed is cut off the file.

    Raises:
        ValueError: if another line is not JSON.
    """
    if not path.is_file():
        return []
    whole, end, half = path.read_text().rpartition("\n")
    if half:
        path.write_text(whole + end)
    entries = []
    for number, line in enumerate(whole.splitlines(), 1):
        if not line.strip():
            continue
        try:
            entries.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"Line {number} of {path} is not JSON: it is no journal of ours, pass another file.") from error
    return entries


def kept(path: Path | None, results: Iterable[Result]) -> Iterator[Result]:
    """The results, which are data classes, each added to the journal when it is there; to none without a path."""
    for result in results:
        if path is not None:
            append_line(path, asdict(result))
        yield result


def append_line(path: Path, entry: Mapping[str, Any]) -> None:
    """Add an entry behind the others."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(entry) + "\n")
