"""The batches of tasks of a run's steps: a function of the seed and the step's number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from captum_meta.tasks.augment import augment
from captum_meta.tasks.cache import ExplanationCache, TaskFamily
from captum_meta.tasks.joining import join
from captum_meta.training.budgets import at_budget
from captum_meta.types import Explanations, ExplanationTask


def split(explanations: Explanations, support_rows: int) -> ExplanationTask:
    """The first ``support_rows`` rows of every task as support set, the others as query set.

    Raises:
        ValueError: if no row would be left as a query.
    """
    _require_queries(explanations, support_rows)
    support = explanations[:, :support_rows]
    return ExplanationTask(support, explanations[:, support_rows:] if support_rows else explanations)


def _require_queries(explanations: Explanations, support_rows: int) -> None:
    if support_rows >= len(explanations):
        raise ValueError(
            f"support_rows={support_rows} leave no query of {len(explanations)} rows: pass fewer support rows, or make "
            "tasks of more rows (rows= of the family, rows_per_step)."
        )


class Shards(Sequence[list[Explanations]]):
    """Batches that lie in a folder, those that are not finite left out."""

    def __init__(self, cache: ExplanationCache, metadata: Sequence[Mapping[str, Any]]) -> None:
        self.cache = cache
        self.keys = [one["key"] for one in metadata if one["finite"]]

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, index: Any) -> Any:
        return self.cache.read(self.keys[index])


class Views(Dataset[list[Explanations]]):
    """The batches of a family, made when they are asked for."""

    def __init__(self, family: TaskFamily, length: int) -> None:
        self.family, self.length = family, length

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[Explanations]:
        return self.family.variants(index)


class Steps(IterableDataset[ExplanationTask]):
    """A walk through a pool without end; what step ``s`` sees depends on the seed and ``s`` only.

    Attributes:
        first: the step to begin with.
        rank, ranks: each rank sees every ``ranks``-th task of the step's batch, drawn and augmented as a whole.
    """

    def __init__(
        self,
        pool: Sequence[list[Explanations]],
        steps: int,
        support_rows: Sequence[int],
        seed: int,
        batches: int = 1,
        rows: int | None = None,
    ) -> None:
        self.pool, self.steps, self.support_rows, self.seed = pool, steps, support_rows, seed
        self.batches, self.rows = batches, rows
        self.first, self.rank, self.ranks = 0, 0, 1

    def __iter__(self) -> Iterator[ExplanationTask]:
        worker = get_worker_info()
        begin, stride = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for step in range(self.first + begin, self.first + self.steps, stride):
            yield self.batch(step)

    def __len__(self) -> int:
        return self.steps

    def batch(self, step: int) -> ExplanationTask:
        """This rank's share of the augmented tasks of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        drawn = [self.pool[index] for index in self._draw(generator)]
        view = int(torch.randint(len(drawn[0]), (), generator=generator))
        chosen = join([views[view % len(views)] for views in drawn])
        n_tasks = len(chosen.attributions)
        if n_tasks % self.ranks:
            raise ValueError(
                f"{n_tasks} tasks per step cannot be shared equally by {self.ranks} ranks, and unequal shares would change "
                "the gradient: choose batches_per_step or the family's tasks_per_batch so that they can."
            )
        chosen = self.seen(chosen, generator)
        k = self.support_rows[0]
        if len(self.support_rows) > 1:
            k = self.support_rows[int(torch.randint(len(self.support_rows), (), generator=generator))]
        return split(chosen[self.rank :: self.ranks], k)

    def seen(self, tasks: Explanations, generator: torch.Generator) -> Explanations:
        """Some rows of the tasks, augmented."""
        tasks = tasks[:, torch.randperm(len(tasks), generator=generator)[: self.rows]]
        adapts = max(self.support_rows) > 0
        return augment(tasks, generator, inside=0.0) if adapts else augment(tasks, generator)

    def _draw(self, generator: torch.Generator) -> list[int]:
        """Different batches of the pool."""
        chosen: list[int] = []
        while len(chosen) < self.batches:
            index = int(torch.randint(len(self.pool), (), generator=generator))
            if index not in chosen:
                chosen.append(index)
        return chosen


class StepsAsMade(Steps):
    """The same walk, through tasks as they were made: their first rows in their order, with all of their evidence."""

    def seen(self, tasks: Explanations, generator: torch.Generator) -> Explanations:
        return tasks[:, : self.rows]


class Evaluations:
    """All views of this rank's share of a pool, with ``k`` support rows; queries are the rows behind the first ``skip``.

    With a ``budget`` they are as :func:`at_budget` leaves them. The length of no views is 1: Lightning would leave out a
    rank without any, while the others wait for its errors. This is no ``DataLoader``, which Lightning would take for a
    shuffled one where ``overfit_batches`` are wanted.
    """

    def __init__(
        self, pool: Sequence[list[Explanations]], k: int, skip: int, rank: int, ranks: int, budget: int | None = None
    ) -> None:
        self.pool, self.k, self.skip, self.budget = pool, k, skip, budget
        self.indices = range(rank, len(pool), ranks)

    def __iter__(self) -> Iterator[ExplanationTask]:
        for index in self.indices:
            for view in self.pool[index]:
                known = view if self.budget is None else at_budget(view, self.budget)
                if known is not None:
                    _require_queries(known, self.skip)
                    yield ExplanationTask(known[:, : self.k], known[:, self.skip :])

    def __len__(self) -> int:
        return max(1, sum(len(self.pool[index]) for index in self.indices))


class StepLoader:
    """Begins each time at the step that the trainer has come to, so that Lightning may resume in the middle of an epoch.

    It asks for the step when the first batch is wanted: Lightning calls ``iter`` before it has restored its counters. With
    ``Trainer(overfit_batches=...)`` all epochs see the first steps. It is no ``DataLoader``, into which Lightning would put
    samplers of its own.
    """

    def __init__(self, steps: Steps, data: LightningDataModule, workers: int) -> None:
        self.dataset, self.data, self.workers = steps, data, workers

    def __iter__(self) -> Iterator[ExplanationTask]:
        trainer = self.data.trainer
        if trainer is not None:
            self.dataset.first = 0 if trainer.overfit_batches else trainer.fit_loop.total_batch_idx + 1
        yield from DataLoader(self.dataset, batch_size=None, num_workers=self.workers)

    def __len__(self) -> int:
        return len(self.dataset)

    def state_dict(self) -> dict[str, Any]:
        """Nothing: the trainer knows the step. That this method exists tells Lightning that the loader can resume."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""
