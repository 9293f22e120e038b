"""`captum-meta benchmark table`: how fast one process explains a large table to files, and in how much memory."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter, process_time
from typing import Any

import torch
from lightning import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback
from rich.console import Console
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.memory import peak_megabytes
from captum_meta.benchmark.nets import perceptron
from captum_meta.training import AttributionPredictor, AttributionWriter, whole_batches
from captum_meta.training.attribution_files import files_in

FEATURES, _BATCH, _WIDTH = 20, 1024, 64


class Rows(Dataset[Tensor]):
    """Normal rows ``(20,)``, drawn when they are asked for: a table that is larger than memory.

    Args:
        count: how many there are.
    """

    def __init__(self, count: int) -> None:
        self.count = count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, row: int) -> Tensor:
        return torch.randn(FEATURES, generator=torch.Generator().manual_seed(row))


@dataclass(frozen=True)
class Rate:
    """The rate and memory of one process.

    Attributes:
        rows: explained and written, with 40 coalitions and 3 gradients each.
        seconds: that it took.
        processor: CPU seconds of it; fewer on a busy machine.
        megabytes: peak resident memory after the first tenth of the time, and at the end.
        size: bytes on disk per row.
    """

    rows: int
    seconds: float
    processor: float
    megabytes: tuple[float, float]
    size: float


class _Enough(Exception):
    """The time is over."""


class _Watch(Callback):
    def __init__(self, seconds: float) -> None:
        self.seconds, self.began, self.processor = seconds, perf_counter(), process_time()
        self.rows, self.early = 0, 0.0

    def on_predict_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        self.rows += outputs.count
        spent = perf_counter() - self.began
        if not self.early and spent >= self.seconds / 10:
            self.early = peak_megabytes()
        if spent >= self.seconds:
            raise _Enough


def measure(rows: int, seconds: float, folder: Path) -> Rate:
    """Explain a probability of an MLP with 20 features until all rows are done or the time is over."""
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = nn.Sequential(perceptron(FEATURES, _WIDTH, _WIDTH, 2), nn.Softmax(1)).eval()
    watch = _Watch(seconds)
    trainer = Trainer(
        accelerator="cpu",
        devices=1,
        callbacks=[AttributionWriter(folder), watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    loader = whole_batches(DataLoader(Rows(rows), batch_size=_BATCH))
    with suppress(_Enough):
        trainer.predict(AttributionPredictor(MetaKernelShap(model), target=1), loader, return_predictions=False)
    took, processor = perf_counter() - watch.began, process_time() - watch.processor
    size = sum(path.stat().st_size for path in files_in(folder, "safetensors")) / max(1, watch.rows)
    return Rate(watch.rows, took, processor, (watch.early or peak_megabytes(), peak_megabytes()), size)


def main(arguments: Sequence[str]) -> None:
    """Explain a large table to files with one process, and print its rate and its peak memory."""
    parser = ArgumentParser("captum-meta benchmark table", description=main.__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, metavar="N", help="rows of 20 features (default: 1000000)")
    parser.add_argument("--minutes", type=float, default=10, metavar="N", help="when to stop at the latest (default: 10)")
    options = parser.parse_args(arguments)
    with TemporaryDirectory() as folder:
        rate = measure(options.rows, 60 * options.minutes, Path(folder))
    per_second = rate.rows / rate.processor
    early, late = rate.megabytes
    Console(highlight=False).print(
        f"{rate.rows:,} of {options.rows:,} rows of {FEATURES} features in {rate.seconds:.0f} s, {rate.processor:.0f} s of "
        f"the processor: {per_second:,.0f} rows per second of one processor, all of them in "
        f"{options.rows / per_second / 60:,.0f} minutes.\n"
        f"Peak memory {early:,.0f} MB after a tenth of the time, {late:,.0f} MB at the end; {rate.size:.0f} bytes per row "
        f"on disk, in {ceil(rate.rows / _BATCH):,} files."
    )
