"""Atomic writes: files are whole or absent, also with several writers and after a crash."""

from __future__ import annotations

import os
import re
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO
from uuid import uuid4


def write_whole(path: Path, content: bytes) -> None:
    """Write ``path`` so that it is whole or as it was before: beside its place, flushed and renamed.

    What writers that were killed left beside it goes away; parts of writers that still run stay, as these hold a lock on
    them.

    Raises:
        OSError: if the folder cannot be written to; no part is left behind.
    """
    _sweep(path)
    part, file = _begin(path)
    try:
        with file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
            part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _begin(path: Path) -> tuple[Path, BinaryIO]:
    """A part of this writer's own, locked; another writer may have swept it away before it was."""
    while True:
        part = path.with_name(f"{path.name}.{uuid4().hex}.part")
        file = part.open("wb")
        _lock(file)
        if os.fstat(file.fileno()).st_nlink:
            return part, file
        file.close()


def _sweep(path: Path) -> None:
    """Remove the parts that no writer holds."""
    name = re.compile(rf"{re.escape(path.stem)}\.(\d+|{re.escape(path.suffix[1:])}\.[0-9a-f]{{32}})\.part")
    for part in [part for part in path.parent.iterdir() if name.fullmatch(part.name)]:
        with suppress(OSError), part.open("r+b") as file:
            if _lock(file):
                part.unlink(missing_ok=True)


def _lock(file: BinaryIO) -> bool:
    """Lock an open file until it is closed; False where another process has, or where files cannot be locked."""
    try:
        import fcntl

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (ImportError, OSError):
        return False
    return True
