"""Explained tasks of the past, for online learning."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Generator

from captum_meta.tasks.cache import build, flatten, is_finite
from captum_meta.tasks.joining import join
from captum_meta.types import Explanations, ExplanationTask


class TaskBuffer:
    """The latest ``size`` tasks.

    A reservoir, which keeps a sample of all tasks, would go on learning from models of long ago.

    Args:
        size: the most tasks kept.

    >>> from captum_meta.tasks import SyntheticTaskFamily
    >>> buffer = TaskBuffer(2)
    >>> for index in range(3):
    ...     rows = SyntheticTaskFamily(tasks_per_batch=1, rows=6)[index]
    ...     buffer.add(ExplanationTask(rows[:, :2], rows[:, 2:]))
    >>> len(buffer)
    2
    """

    def __init__(self, size: int) -> None:
        self._tasks: deque[tuple[Explanations, int]] = deque(maxlen=size)

    def __len__(self) -> int:
        return len(self._tasks)

    def add(self, tasks: ExplanationTask) -> None:
        """Keep tasks ``(T, K, M)`` and ``(T, N, M)``, on the CPU."""
        rows = Explanations.concatenate([tasks.support, tasks.query], dim=1).detach().to("cpu")
        for index in range(len(rows.attributions)):
            self._tasks.append((rows[index : index + 1], len(tasks.support)))

    def rows(self) -> list[Explanations]:
        """All rows of each task, ``(1, N, M)``, oldest first."""
        return [rows for rows, _ in self._tasks]

    def draw(self, count: int, generator: Generator) -> ExplanationTask:
        """``count`` different tasks, or all where there are fewer, their rows dealt out anew to support and query.

        As many rows of each as the shortest task has, as many of them support as the least had; players are padded.
        """
        chosen = [self._tasks[index] for index in torch.randperm(len(self), generator=generator)[:count].tolist()]
        n_rows = min(len(rows) for rows, _ in chosen)
        n_support = min(support for _, support in chosen)
        dealt = [rows[:, torch.randperm(len(rows), generator=generator)[:n_rows]] for rows, _ in chosen]
        together = join(dealt)
        return ExplanationTask(together[:, :n_support], together[:, n_support:])

    def state_dict(self) -> list[dict[str, Any]]:
        """The tasks as plain tensors by name."""
        return [{"support_rows": support, "rows": dict(flatten(rows))} for rows, support in self._tasks]

    def load_state_dict(self, state: list[dict[str, Any]]) -> None:
        """Take the tasks of ``state`` in place of those there are."""
        self._tasks.clear()
        self._tasks.extend((build(Explanations, entry["rows"]), entry["support_rows"]) for entry in state)


def is_finite_task(task: ExplanationTask) -> bool:
    """Whether labels and evidence of both sets are numbers."""
    return is_finite(task.support) and is_finite(task.query)
