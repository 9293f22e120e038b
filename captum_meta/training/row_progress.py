"""Progress of the command `captum-meta explain`."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any, Protocol, runtime_checkable

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from captum_meta._files import write_whole

SUMMARY = "summary.json"


@runtime_checkable
class CountsEvaluations(Protocol):
    """A model that counts how often it was evaluated."""

    evaluations: int


class RowProgress(Callback):
    """A progress bar of rows, with rows per second and the time left; at the end counts of rows and evaluations in a file.

    Args:
        rows, batch_size: of the data.
        folder: of the explanations, where ``summary.json`` is written.
        model: which counts its evaluations.
    """

    def __init__(self, rows: int, batch_size: int, folder: Path, model: CountsEvaluations) -> None:
        self.rows, self.batch_size, self.folder, self.model = rows, batch_size, folder, model

    def on_predict_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        warnings.filterwarnings("ignore", "Couldn't infer the batch indices")  # whole batches tell their rows themselves
        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[speed]}"), TimeRemainingColumn())
        self.bar = Progress(TextColumn("rows"), *columns, disable=not trainer.is_global_zero, console=Console(stderr=True))
        self.task = self.bar.add_task("rows", total=self.rows, speed="")
        self.explained = 0
        self.began = perf_counter()
        self.bar.start()

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.explained += outputs.count if outputs.values else 0
        done = min(self.rows, (batch_idx + 1) * self.batch_size * trainer.world_size)
        self.bar.update(self.task, completed=done, speed=f"{done / (perf_counter() - self.began):,.0f} rows/s")

    def on_predict_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.bar.stop()
        own = torch.tensor([self.explained, self.model.evaluations], dtype=torch.float64)
        explained, evaluations = trainer.strategy.reduce(own, reduce_op="sum").tolist()
        if trainer.is_global_zero:
            content = {"rows": int(explained), "evaluations": int(evaluations)}
            write_whole(self.folder / SUMMARY, (json.dumps(content) + "\n").encode())
