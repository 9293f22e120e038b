"""Printed tables."""

from __future__ import annotations

from collections.abc import Collection, Iterable

from rich.table import Table


def table_of(title: str, columns: Iterable[str], words: Collection[str] = ()) -> Table:
    """An empty table: columns in ``words`` aligned to the left, those of numbers to the right."""
    table = Table(title=title)
    for column in columns:
        table.add_column(column, justify="left" if column in words else "right")
    return table
