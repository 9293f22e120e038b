"""Batches of explanation tasks for Lightning."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from lightning import LightningDataModule
from torch.utils.data import DataLoader

from captum_meta.tasks.cache import ExplanationCache, TaskFamily, describe, is_finite, key_of, make
from captum_meta.training.steps import Evaluations, Shards, StepLoader, Steps, StepsAsMade, Views, split
from captum_meta.types import Explanations

__all__ = ["ExplanationTaskDataModule", "TaskFamily", "split"]

_ENDLESS = 256


class ExplanationTaskDataModule(LightningDataModule):
    """Explanation tasks of families to learn from, to choose by and to test on.

    Labels are made in ``setup``, by all ranks and their workers, each batch by one of them, and kept. A step's tasks are a
    function of the seed and the step's number alone, and ranks share them equally: stopping, resuming and another number of
    ranks change nothing.

    Args:
        train: the family to learn from.
        validation: the family that measures, or several by name; none may share models with ``train``.
        batches: how many batches of ``train`` are made; training walks through them at random, augmented anew each time.
            None: all of a finite family, 256 of an endless one.
        validation_batches: how many batches of each family of ``validation`` and ``test`` are made; None as above.
        steps_per_epoch: steps between two validations.
        support_rows: rows of each task that a learner adapts on, or several numbers of which each step draws one; 0 for
            learners that do not adapt.
        folder: where the batches are kept, each under a hash of all that it depends on, so that it is made once and by
            whichever run needs it first. All ranks must see the same folder. None: in memory, and every rank makes all.
        workers: processes that make the batches, and read them while training; 0 where the models are on a GPU.
        seed: of the order and augmentation of the batches.
        test: as ``validation``, for ``trainer.test`` and ``trainer.predict``; by default the validation families.
        batches_per_step: batches joined in a step: a :class:`~captum_meta.tasks.ModelTaskFamily` has a task in each.
        rows_per_step: rows of each task used in a step, drawn anew each time; None for all.
        validation_support_rows: numbers of support rows at which errors are measured, on the same queries; by default
            the largest of ``support_rows``.
        augment: whether each step sees its tasks augmented anew: rows in another order, games negated and replaced by their
            duals, parts of the evidence hidden. False for families whose evidence is used as it was made.
        validation_budgets: budgets at which errors are measured and logged each by itself, such as 0, 2 and 8 coalitions
            for each player, or 3, 5 and 10 gradients of paths; None: all that was measured.
    """

    def __init__(
        self,
        train: TaskFamily,
        validation: TaskFamily | dict[str, TaskFamily],
        batches: int | None = 256,
        validation_batches: int | None = 24,
        steps_per_epoch: int = 500,
        support_rows: int | list[int] = 0,
        folder: str | None = None,
        workers: int = 0,
        seed: int = 0,
        test: TaskFamily | dict[str, TaskFamily] | None = None,
        batches_per_step: int = 1,
        rows_per_step: int | None = None,
        validation_support_rows: list[int] | None = None,
        validation_budgets: list[int] | None = None,
        augment: bool = True,
    ) -> None:
        super().__init__()
        validations = _named(validation)
        self.families = {"train": {"": train}, "validation": validations, "test": _named(test) if test else validations}
        self.limits = {"train": batches, "validation": validation_batches, "test": validation_batches}
        self.steps_per_epoch, self.batches_per_step, self.rows_per_step = steps_per_epoch, batches_per_step, rows_per_step
        self.support_rows = [support_rows] if isinstance(support_rows, int) else list(support_rows)
        self.validation_support_rows = validation_support_rows or [max(self.support_rows)]
        self.validation_budgets: list[int | None] = [*validation_budgets] if validation_budgets else [None]
        self.cache = None if folder is None else ExplanationCache(folder)
        self.workers, self.seed, self.augment = workers, seed, augment
        self._memory: dict[tuple[str, str], list[list[Explanations]]] = {}
        self._pools: dict[tuple[str, str], Sequence[list[Explanations]]] = {}

    @property
    def rank(self) -> tuple[int, int]:
        """This process's number, and how many there are."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def setup(self, stage: str) -> None:
        # workers share the steps among themselves
        warnings.filterwarnings("ignore", message="Your `IterableDataset` has `__len__` defined")
        stages = {"fit": ("train", "validation"), "validate": ("validation",)}.get(stage, ("test",))
        for name in stages:
            for label in self.families[name]:
                if (name, label) not in self._pools and (name, label) not in self._memory:
                    self._make(name, label)

    def train_dataloader(self) -> StepLoader:
        pool = self._pool("train", "")
        if self.batches_per_step > len(pool):
            raise ValueError(f"A step joins {self.batches_per_step} different batches, but there are only {len(pool)}.")
        kind = Steps if self.augment else StepsAsMade
        steps = kind(pool, self.steps_per_epoch, self.support_rows, self.seed, self.batches_per_step, self.rows_per_step)
        steps.rank, steps.ranks = self.rank
        return StepLoader(steps, self, self.workers)

    def val_dataloader(self) -> list[Evaluations]:
        return self._evaluations("validation")

    def test_dataloader(self) -> list[Evaluations]:
        return self._evaluations("test")

    predict_dataloader = test_dataloader

    def labels(self, name: str) -> list[str]:
        """What each loader of ``"validation"`` or ``"test"`` measures: the family (of several), k, and the budget."""
        return [
            "/".join([*filter(None, [label]), f"k={k}", *([] if budget is None else [f"budget={budget}"])])
            for label in self.families[name]
            for k in self.validation_support_rows
            for budget in self.validation_budgets
        ]

    def _evaluations(self, name: str) -> list[Evaluations]:
        skip = max(self.validation_support_rows)
        return [
            Evaluations(self._pool(name, label), k, skip, *self.rank, budget)
            for label in self.families[name]
            for k in self.validation_support_rows
            for budget in self.validation_budgets
        ]

    def _make(self, name: str, label: str) -> None:
        family, length = self.families[name][label], self._length(name, label)
        rank, ranks = self.rank
        if self.cache is None:
            loader = DataLoader(Views(family, length), batch_size=None, num_workers=self.workers)
            self._memory[name, label] = list(_shown(loader, f"{name} {label}".strip(), length, rank))
            self._pool(name, label)
            return
        indices = range(rank, length, ranks)
        keys = [key_of(describe(family, index)) for index in indices]
        made = make(family, self.cache, indices, keys, self.workers)
        for _ in _shown(made, f"{name} {label}".strip(), len(indices), rank):
            pass

    def _pool(self, name: str, label: str) -> Sequence[list[Explanations]]:
        """The finite batches of a family; to be called when all ranks have made theirs."""
        place = (name, label)
        if place not in self._pools:
            pool: Sequence[list[Explanations]]
            if self.cache is None:
                pool = [views for views in self._memory.pop(place) if all(map(is_finite, views))]
            else:
                family = self.families[name][label]
                keys = (key_of(describe(family, index)) for index in range(self._length(name, label)))
                metadata = [self.cache.metadata(key) for key in keys]
                if self.rank[0] == 0:
                    self.cache.write_manifest("-".join(filter(None, place)), metadata)
                pool = Shards(self.cache, metadata)
            if not len(pool):
                raise ValueError(f"The {name} family gave no batch of finite explanations: check its models' outputs.")
            self._pools[place] = pool
        return self._pools[place]

    def _length(self, name: str, label: str) -> int:
        family, limit = self.families[name][label], self.limits[name]
        size = getattr(family, "__len__", None)
        if size is None:
            return _ENDLESS if limit is None else limit
        return int(size() if limit is None else min(limit, size()))


def _named(families: TaskFamily | Mapping[str, TaskFamily]) -> dict[str, TaskFamily]:
    return dict(families) if isinstance(families, Mapping) else {"": families}


def _shown(made: Any, what: str, total: int, rank: int) -> Any:
    from rich.progress import track

    return track(made, description=f"Making {what} tasks", total=total) if rank == 0 else made
