"""A small run on user models, shared by the tests; as a program it is killed on the way, or one of two ranks.

small_run.py FOLDER shard|step|workers|ranks|nodes|single
"""

import os
import signal
import sys
from pathlib import Path

import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint
from torch import Tensor, nn

from captum_meta.learners import MAML, ZeroShot
from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import ExplainedData, ModelTaskFamily, cache
from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule
from captum_meta.types import Explanations


class AnyWidth(nn.Module):
    """Two outputs from up to five features; dropout tells train from eval mode."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.first = nn.Parameter(torch.randn(5, 6, generator=generator))
        self.second = nn.Parameter(torch.randn(6, 2, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dropout(x @ self.first[: x.shape[1]])) @ self.second


class Recorded(ModelTaskFamily):
    """Writes down which rank made which task."""

    folder: Path

    def variants(self, index: int) -> list[Explanations]:
        rank = os.environ.get("RANK", "0")
        with (self.folder / "made.txt").open("a") as file:
            file.write(f"{rank} {self.pairs[index]}\n")
        return super().variants(index)


def rows(width: int, count: int = 12, seed: int = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def families(folder: Path) -> tuple[Recorded, Recorded]:
    data = [ExplainedData(rows(5), name="five"), ExplainedData(rows(3), name="three")]
    everything = Recorded([AnyWidth(seed) for seed in range(5)], data, rows=8)
    everything.folder = folder
    return everything.hold_out(models=[4])


def data(folder: Path, workers: int = 0) -> ExplanationTaskDataModule:
    """Validated on two models and data sets, and on one, of which a second rank has no share."""
    train, held_out = families(folder)
    alone = Recorded([AnyWidth(5)], ExplainedData(rows(4), name="four"), rows=8)
    alone.folder = folder
    return ExplanationTaskDataModule(
        train,
        {"two": held_out, "one": alone},
        batches=None,
        steps_per_epoch=10,
        support_rows=2,
        folder=str(folder / "labels"),
        workers=workers,
        batches_per_step=4,
        rows_per_step=6,
    )


class Losses(Callback):
    """The loss of each step, in a file."""

    def __init__(self, path: Path) -> None:
        self.path, self.losses = path, []

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self.losses.append(trainer.callback_metrics["train/loss"].clone())

    def on_train_end(self, trainer: Trainer, *args: object) -> None:
        if trainer.is_global_zero:
            torch.save(torch.stack(self.losses), self.path)


class KillAt(Callback):
    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer: Trainer, *args: object) -> None:
        if trainer.global_step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


def module(double: bool = True) -> MetaLearningModule:
    """Sums of ranks differ in the last digits, which twenty steps in single precision make visible.

    There a learner that adapts is trained, whose steps are differentiated in two shares.
    """
    with torch.random.fork_rng():
        torch.manual_seed(0)
        learner = ZeroShot(ShapleyExplainer(8, 1)) if double else MAML(ShapleyExplainer(8, 1), steps=2)
    made = MetaLearningModule(learner, warmup_steps=2, shares=1 if double else 2)
    return made.double() if double else made


def trainer(folder: Path, *callbacks: Callback, **arguments: object) -> Trainer:
    """Checkpoints every third step; two epochs of ten."""
    keep = ModelCheckpoint(folder / "checkpoints", filename="last", every_n_train_steps=3, enable_version_counter=False)
    return Trainer(
        default_root_dir=folder,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        log_every_n_steps=1,
        callbacks=[keep, EMAWeightAveraging(decay=0.9), *callbacks],
        **{"max_epochs": 2, **arguments},  # type: ignore[arg-type]
    )


def kill_in_the_third_shard() -> None:
    flush, flushed = os.fsync, []

    def fsync(file: int) -> None:
        flushed.append(file)
        if len(flushed) == 5:  # a shard flushes itself and its folder
            os.ftruncate(file, 100)
            os.kill(os.getpid(), signal.SIGKILL)
        flush(file)

    cache.os.fsync = fsync


def uninterrupted(folder: Path, double: bool = True, **arguments: object) -> None:
    run = trainer(folder, Losses(folder / "losses.pt"), **arguments)
    run.fit(module(double), data(folder))
    run.save_checkpoint(folder / "end.ckpt", weights_only=True)
    if run.is_global_zero:
        torch.save(
            {name: value for name, value in run.callback_metrics.items() if "validation" in name}, folder / "errors.pt"
        )


def main(folder: Path, how: str) -> None:
    if how in ("ranks", "single"):
        uninterrupted(folder, how == "ranks", strategy="ddp", devices=2)
        return
    if how == "nodes":
        uninterrupted(folder, strategy="ddp", devices=1, num_nodes=2)
        return
    if how == "shard":
        kill_in_the_third_shard()
    trainer(folder, KillAt(14)).fit(module(), data(folder, workers=2 if how == "workers" else 0))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
