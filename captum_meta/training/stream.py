"""Explanation tasks in order of time."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from typing import Any

from torch.utils.data import IterableDataset

from captum_meta.tasks import LabelError, TaskFamily
from captum_meta.training.data import split
from captum_meta.types import ExplanationTask


class TaskStream(IterableDataset[ExplanationTask | None]):
    """The batches of a task family, one per round and each once, for :class:`FollowTheMetaLeader`.

    Pass it to ``trainer.fit`` as it is, not within a ``DataLoader``: the module sets it to the round that it has come to. A
    round is explained when it is asked for. One that cannot be labelled is None, with a warning.

    Args:
        family: round ``t`` is the first view of its batch ``t``; a :class:`~captum_meta.tasks.ModelStream`, any
            :class:`~captum_meta.tasks.ModelTaskFamily`, or your own.
        support_rows: the first rows of every task, which the learner adapts on; the others are its query.
        rounds: how many; by default all of a finite family.

    Attributes:
        first: the round to begin with.

    Raises:
        ValueError: if there are no rounds, or an endless family is given without their number.

    >>> from captum_meta.tasks import SyntheticTaskFamily
    >>> stream = TaskStream(SyntheticTaskFamily(tasks_per_batch=1, rows=6), support_rows=2, rounds=3)
    >>> [(len(task.support), len(task.query)) for task in stream]
    [(2, 4), (2, 4), (2, 4)]
    """

    def __init__(self, family: TaskFamily, support_rows: int, rounds: int | None = None) -> None:
        size = getattr(family, "__len__", None)
        if rounds is None and size is None:
            raise ValueError(f"{type(family).__name__} has no end: pass rounds=, the number of its batches that come.")
        self.family, self.support_rows, self.first = family, support_rows, 0
        self.rounds: int = size() if rounds is None else rounds  # type: ignore[misc]
        if self.rounds < 1:
            raise ValueError("The stream has no rounds: pass a family with at least one task, or rounds= of at least 1.")

    def __len__(self) -> int:
        return self.rounds

    def __iter__(self) -> Iterator[ExplanationTask | None]:
        for number in range(self.first, self.rounds):
            yield self._round(number)

    def _round(self, number: int) -> ExplanationTask | None:
        try:
            return split(self.family.variants(number)[0], self.support_rows)
        except LabelError as error:
            warnings.warn(f"Round {number} is left out: {error}", stacklevel=3)
            return None

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the module knows the round. That this method exists tells Lightning that the stream can resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
