"""Tasks with different numbers of players, in one batch."""

from __future__ import annotations

from collections.abc import Sequence

from torch.utils.data._utils.collate import default_collate_fn_map

from captum_meta.evidence import joined
from captum_meta.types import Explanations, ExplanationTask


def join(batches: Sequence[Explanations]) -> Explanations:
    """One batch ``(T_1 + T_2 + ..., N, M)`` from batches ``(T_i, N, M_i)``: padded to the most players and coalitions.

    Coalitions are lost only where no batch has any.

    Raises:
        ValueError: if the numbers of rows differ.
    """
    if len(batches) == 1:
        return batches[0]
    rows = {len(batch) for batch in batches}
    if len(rows) > 1:
        raise ValueError(f"Tasks of {sorted(rows)} rows cannot be joined: give all as many rows (rows= of a family).")
    return joined(batches)


def collate_tasks(tasks: Sequence[ExplanationTask], **_: object) -> ExplanationTask:
    """One batch ``(T, ...)`` from tasks ``(...)`` of one model each, or from batches ``(T_i, ...)`` of them.

    ``DataLoader(tasks, batch_size=8)`` does so by itself once :mod:`captum_meta.tasks` is imported.

    Raises:
        ValueError: if the numbers of support rows, or of query rows, differ.

    >>> from torch.utils.data import DataLoader
    >>> from captum_meta.tasks import SyntheticTaskFamily
    >>> rows = SyntheticTaskFamily(tasks_per_batch=3, rows=6)[0]
    >>> own = [ExplanationTask(rows[task, :4], rows[task, 4:]) for task in range(3)]
    >>> [len(batch.support.attributions) for batch in DataLoader(own, batch_size=2)]
    [2, 1]
    """
    parts = [task if task.query.attributions.dim() > 2 else ExplanationTask.stack([task]) for task in tasks]
    return ExplanationTask(join([part.support for part in parts]), join([part.query for part in parts]))


default_collate_fn_map[ExplanationTask] = collate_tasks
