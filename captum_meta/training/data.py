"""Batches of explanation tasks for Lightning."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import torch
from lightning import LightningDataModule
from torch.utils.data import DataLoader, Dataset, IterableDataset, get_worker_info

from captum_meta.tasks.augment import augment
from captum_meta.types import Evidence, Explanations, ExplanationTask


class TaskFamily(Protocol):
    """A source of batches of explanations: ``variants(index)`` gives one or more views ``(T, N, M)`` of batch ``index``."""

    def variants(self, index: int) -> list[Explanations]:
        """Explanations of the models of batch ``index``."""


def split(explanations: Explanations, support_rows: int) -> ExplanationTask:
    """The first ``support_rows`` rows of every task as support set, the others as query set."""
    support = explanations[:, :support_rows]
    return ExplanationTask(support, explanations[:, support_rows:] if support_rows else explanations)


class _Pool(Dataset[list[Explanations]]):
    """Batches of a family, made once and kept in a folder."""

    def __init__(self, family: TaskFamily, length: int, folder: Path | None) -> None:
        self.family, self.length, self.folder = family, length, folder

    def __len__(self) -> int:
        return self.length

    def __getitem__(self, index: int) -> list[Explanations]:
        if self.folder is None:
            return self.family.variants(index)
        path = self.folder / f"{index:06d}.pt"
        if not path.is_file():
            self.folder.mkdir(parents=True, exist_ok=True)
            part = path.with_suffix(".part")
            torch.save(self.family.variants(index), part)
            part.replace(path)
        with torch.serialization.safe_globals(_stored_types()):
            batch: list[Explanations] = torch.load(path, weights_only=True)
        return batch


def _stored_types() -> list[Any]:
    from captum_meta.types import Coalitions

    return [Explanations, Evidence, Coalitions]


class _Steps(IterableDataset[ExplanationTask]):
    """An endless walk through a pool; what step ``s`` sees depends on the seed and ``s`` only."""

    def __init__(self, pool: list[list[Explanations]], steps: int, support_rows: int, seed: int) -> None:
        self.pool, self.steps, self.support_rows, self.seed = pool, steps, support_rows, seed
        self.epoch = 0

    def __iter__(self) -> Iterator[ExplanationTask]:
        worker = get_worker_info()
        first, stride = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        for step in range(first, self.steps, stride):
            yield self.batch(self.epoch * self.steps + step)
        self.epoch += 1

    def __len__(self) -> int:
        return self.steps

    def batch(self, step: int) -> ExplanationTask:
        """The augmented tasks of one step."""
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        views = self.pool[int(torch.randint(len(self.pool), (), generator=generator))]
        chosen = views[int(torch.randint(len(views), (), generator=generator))]
        rows = torch.randperm(len(chosen), generator=generator)
        return split(augment(chosen[:, rows], generator), self.support_rows)


class ExplanationTaskDataModule(LightningDataModule):
    """Explanation tasks of a training and a validation family.

    Args:
        train: the family to learn from.
        validation: the family that measures; it must not share a seed with ``train``.
        batches: how many batches of ``train`` are made; training walks through them at random, augmented anew each time.
        validation_batches: how many batches of ``validation`` are made.
        steps_per_epoch: steps between two validations.
        support_rows: rows of each task that a learner adapts on; 0 for learners that do not adapt.
        folder: where the batches are kept; made again where it is empty, nowhere if None.
        workers: processes that make the batches.
        seed: of the order and augmentation of the batches.
    """

    def __init__(
        self,
        train: TaskFamily,
        validation: TaskFamily,
        batches: int = 256,
        validation_batches: int = 24,
        steps_per_epoch: int = 500,
        support_rows: int = 0,
        folder: str | None = None,
        workers: int = 0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.families = {"train": train, "validation": validation}
        self.lengths = {"train": batches, "validation": validation_batches}
        self.steps_per_epoch, self.support_rows = steps_per_epoch, support_rows
        self.folder, self.workers, self.seed = folder, workers, seed
        self.pools: dict[str, list[list[Explanations]]] = {}

    def setup(self, stage: str) -> None:
        for name in self.families:
            if name not in self.pools:
                self.pools[name] = self._make(name)

    def _make(self, name: str) -> list[list[Explanations]]:
        from rich.progress import track

        folder = Path(self.folder) / name if self.folder is not None else None
        pool = _Pool(self.families[name], self.lengths[name], folder)
        loader = DataLoader(pool, batch_size=None, num_workers=self.workers)
        batches = list(track(loader, description=f"Making {name} tasks", total=len(pool)))
        finite = [views for views in batches if all(_finite(view) for view in views)]
        if not finite:
            raise ValueError(f"The {name} family gave no batch of finite explanations: check its models' outputs.")
        return finite

    def train_dataloader(self) -> DataLoader[ExplanationTask]:
        steps = _Steps(self.pools["train"], self.steps_per_epoch, self.support_rows, self.seed)
        return DataLoader(steps, batch_size=None)

    def val_dataloader(self) -> DataLoader[ExplanationTask]:
        tasks = [split(view, self.support_rows) for views in self.pools["validation"] for view in views]
        return DataLoader(tasks, batch_size=None)  # type: ignore[arg-type]

    def transfer_batch_to_device(self, batch: Any, device: torch.device, dataloader_idx: int) -> Any:
        return batch.to(device) if isinstance(batch, ExplanationTask) else batch


def _finite(explanations: Explanations) -> bool:
    tensors = (explanations.attributions, explanations.evidence.effects, explanations.evidence.total)
    return all(bool(tensor.isfinite().all()) for tensor in tensors)
