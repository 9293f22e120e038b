"""What the printed tables share."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rich.table import Table


def table_of(title: str, columns: Iterable[str], words: Collection[str] = ()) -> Table:
    """A table without lines yet, columns of ``words`` to the left and those of numbers to the right."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right")
    return table
