"""The one Lightning module that meta-trains every learner."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import cos, pi
from os import PathLike
from typing import Any, Literal

import torch
from lightning import LightningModule
from torch import Tensor
from torchmetrics import MeanMetric

from captum_meta.learners import MetaLearner
from captum_meta.learners.storage import build, configuration
from captum_meta.losses import relative_errors
from captum_meta.metrics import AttributionError
from captum_meta.training.buffer import is_finite_task
from captum_meta.training.chunks import loss_in_chunks, loss_of_shares
from captum_meta.training.guard import FiniteSteps, marked, reaching
from captum_meta.types import ExplanationTask

_LEARNER = "captum_meta learner"
"""Where a checkpoint says which learner it is of: not among the hyperparameters, which LightningCLI reads as arguments."""
_FROZEN = "captum_meta frozen parameters"
_PRECISIONS = ("32-true", "64-true", "16-mixed", "bf16-mixed", "bf16-true")
"""Those of Lightning's in which there is enough range, or a gradient scaler."""


class MetaLearningModule(LightningModule):
    """Meta-train a learner: minimise ``learner.loss`` over batches of explanation tasks.

    Random numbers drawn in a step follow from the seed and the step's number, so that a resumed run draws the same ones.
    Validation logs ``error`` (mean over tasks, each at most 3) and ``log error`` with the labels' noise taken off, and the
    mean and median :class:`~captum_meta.metrics.AttributionError` for each family and number of support rows.

    A step whose tasks, loss or gradient are not finite is left out with a warning and counted, ``train/steps left out``;
    five in a row end the run with an error. In half precision the gradient scaler does that.

    Args:
        learner: the meta-learner; its parameters are what is trained, all of them where none requires a gradient, as in
            ``load_learner("zero-shot")`` to start from shipped weights.
        learning_rate: of AdamW, after a linear warm-up.
        weight_decay: of AdamW.
        warmup_steps: steps of the warm-up.
        schedule: ``"cosine"``, falling to nothing at the end of the run, or ``"constant"``.
        seed: of what the learner draws at random.
        alternate: train the learner's ``parts()`` in turn, each for so many steps; None: all of them jointly.
        compile: run gradient-based learners by compiled graphs, one for each shape of a batch: for long training on
            batches of a few shapes (see ``GradientLearner.compile``).
        shares: equal shares in which the tasks of a step are differentiated, one after another or on as many ranks. Sums of
            floating-point numbers depend on their order, and Adam's division makes steps of the rounding error in gradients
            that should vanish; with ``shares=2`` one process and two ranks of as many threads add the same numbers in the
            same order, and arrive at the same weights in any precision, whatever the learner. More than two ranks add in
            an order of their own.
        task_chunk_size: differentiate so many tasks of a step (or of a share) at a time and add up the gradients, which
            are those of the whole: memory grows with the chunk, not with the step. With ``compile``, a size that divides
            the tasks spares a second graph. None: all at once.

    Tasks are computed in the precision of the learner: ``MetaLearningModule(learner).double()`` trains in double precision.

    Raises:
        ValueError: the learner cannot be compiled as asked, or ``task_chunk_size`` is not positive.
    """

    def __init__(
        self,
        learner: MetaLearner,
        learning_rate: float = 2e-3,
        weight_decay: float = 1e-4,
        warmup_steps: int = 200,
        schedule: Literal["cosine", "constant"] = "cosine",
        seed: int = 0,
        alternate: int | None = None,
        compile: bool = False,
        shares: int = 1,
        task_chunk_size: int | None = None,
    ) -> None:
        if task_chunk_size is not None and task_chunk_size < 1:
            raise ValueError(f"task_chunk_size={task_chunk_size}: pass how many tasks, at least 1, or None for all at once.")
        super().__init__()
        if not any(parameter.requires_grad for parameter in learner.parameters()):
            learner.requires_grad_(True)
        if compile:
            learner.compile()
        self.learner = learner.train()
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps
        self.schedule, self.seed, self.alternate, self.shares = schedule, seed, alternate, shares
        self.task_chunk_size = task_chunk_size
        self.save_hyperparameters(ignore="learner", logger=False)
        self.finite_steps = FiniteSteps()
        self._error, self._log_error = MeanMetric(), MeanMetric()
        self._errors: list[AttributionError] = []

    def setup(self, stage: str) -> None:
        if self.trainer.precision not in _PRECISIONS:
            raise ValueError(
                f"Trainer(precision={self.trainer.precision!r}) cannot train learners: pass one of {_PRECISIONS}."
            )
        # it would write into the rows of a task, which are frozen; _precise makes them the learner's own precision
        self.trainer.precision_plugin.convert_input = lambda batch: batch

    def on_train_start(self) -> None:
        for callback in self.trainer.callbacks:  # lr_find stops at four times the best loss: of logarithms, at once
            if hasattr(callback, "early_stop_threshold"):
                callback.early_stop_threshold = None

    def training_step(self, batch: ExplanationTask, batch_idx: int) -> Tensor | None:
        self.learner.begin_step(self.trainer.global_step)
        batch = self._precise(batch)
        loss = self._step_loss(batch) if is_finite_task(batch) else batch.query.attributions.new_full((), torch.nan)
        logged = (self.trainer.global_step + 1) % max(1, self.trainer.log_every_n_steps) == 0
        self.log("train/loss", loss, prog_bar=True, sync_dist=logged)  # ranks wait for each other where it is written down
        return marked(reaching(loss, self.learner))

    def _step_loss(self, batch: ExplanationTask) -> Tensor:
        shares = self._shares(batch)
        return self._loss(shares[0]) if len(shares) == 1 else loss_of_shares(self.learner, shares, self._loss)

    def _precise(self, tasks: ExplanationTask) -> ExplanationTask:
        """In the precision of the learner."""
        return tasks.to(dtype=next(self.learner.parameters()).dtype)

    def _loss(self, tasks: ExplanationTask) -> Tensor:
        with self._keyed_random_numbers(self.trainer.fit_loop.total_batch_idx):
            if self.task_chunk_size is None:
                return self.learner.loss(tasks)
            return loss_in_chunks(self.learner, tasks, self.task_chunk_size)

    def _shares(self, batch: ExplanationTask) -> list[ExplanationTask]:
        """This rank's shares of the step's tasks."""
        ranks, n_tasks = self.trainer.world_size, len(batch.query.attributions)
        count = max(1, self.shares // ranks)
        if self.shares > 1 and (self.shares % ranks or n_tasks % count):
            raise ValueError(
                f"{n_tasks * ranks} tasks per step on {ranks} ranks cannot be differentiated in {self.shares} equal shares: "
                "choose shares= as a multiple of the ranks that divides the tasks."
            )
        return [batch] if count == 1 else [batch[start::count] for start in range(count)]

    def on_validation_epoch_start(self) -> None:
        self._errors = []
        for mean in (self._error, self._log_error):
            mean.reset()
            mean.update(0.0, weight=0.0)  # a rank may have no task to measure

    def validation_step(self, batch: ExplanationTask, batch_idx: int, dataloader_idx: int = 0) -> None:
        predicted, right = self.predict_step(batch, batch_idx), batch.query.attributions
        errors = relative_errors(predicted, right, batch.query.variance)
        self._error.update(errors.clamp(max=3))
        self._log_error.update((errors + 1e-3).log())
        while len(self._errors) <= dataloader_idx:
            self._errors.append(self._task_error())
        self._errors[dataloader_idx].update(predicted.flatten(1), right.flatten(1))

    on_test_epoch_start, test_step = on_validation_epoch_start, validation_step

    def predict_step(self, batch: ExplanationTask, batch_idx: int, dataloader_idx: int = 0) -> Tensor:
        """Attributions ``(T, N, M)`` of the query rows."""
        batch = self._precise(batch)
        empty = len(batch.support) == 0
        state = self.learner.initial_state() if empty else self.learner.adapt(batch.support)
        return self.learner.predict(state, batch.query.evidence)

    def on_validation_epoch_end(self) -> None:
        self._report("validation")

    def on_test_epoch_end(self) -> None:
        self._report("test")

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[_LEARNER] = _configuration(self.learner)
        checkpoint[_FROZEN] = [name for name, p in self.learner.named_parameters() if not p.requires_grad]

    @classmethod
    def load_from_checkpoint(cls, checkpoint_path: Any, *arguments: Any, **named: Any) -> MetaLearningModule:
        """As in Lightning; the learner is built as it was, unless ``learner=`` gives one to fill with the weights."""
        if "learner" not in named:
            checkpoint = _read_checkpoint(checkpoint_path)
            if checkpoint[_LEARNER] is None:
                raise ValueError(f"{checkpoint_path} holds a learner with parts of your own: pass learner= to fill.")
            named["learner"] = build(checkpoint[_LEARNER])
            for name in checkpoint.get(_FROZEN, []):
                named["learner"].get_parameter(name).requires_grad_(False)
        module: MetaLearningModule = super().load_from_checkpoint(checkpoint_path, *arguments, **named)
        return module

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is None:  # which leaves out steps by itself
            self.finite_steps.admit(self.learner, self.trainer.global_step)
            self.log("train/steps left out", float(self.finite_steps.left_out))
        if self.alternate is None:
            return
        parts = list(self.learner.parts().values())
        turn = {id(parameter) for parameter in parts[self.trainer.global_step // self.alternate % len(parts)]}
        for parameter in self.learner.parameters():
            if id(parameter) not in turn:
                parameter.grad = None

    def configure_optimizers(self) -> Any:
        trained = [parameter for parameter in self.learner.parameters() if parameter.requires_grad]
        optimizer = torch.optim.AdamW(trained, self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        warm = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "constant":
            return warm
        total = max(1, int(self.trainer.estimated_stepping_batches))
        return warm * (0.5 + 0.5 * cos(pi * min(1.0, step / total)))

    @contextmanager
    def _keyed_random_numbers(self, step: int) -> Iterator[None]:
        devices = [self.device] if self.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self.seed * 1_000_003 + step)
            yield

    def _task_error(self) -> AttributionError:
        """Errors of tasks: all players of all rows of one task count as one row of the metric.

        The first entry is infinite and not counted: ranks without tasks must have something to share, or the others wait.
        """
        error = AttributionError(reduction="none").to(self.device)
        error.update(torch.ones(1, 1, device=self.device), torch.zeros(1, 1, device=self.device))
        return error

    def _report(self, stage: Literal["validation", "test"]) -> None:
        self.log(f"{stage}/error", self._error.compute(), prog_bar=True, sync_dist=True)
        self.log(f"{stage}/log error", self._log_error.compute(), sync_dist=True)
        tell = getattr(getattr(self.trainer, "datamodule", None), "labels", None)
        labels = [f"loader {i}" for i in range(len(self._errors))] if tell is None else tell(stage)
        for number, label in enumerate(labels):
            if number == len(self._errors):
                self._errors.append(self._task_error())
            errors = self._errors[number].compute()
            errors = errors[errors.isfinite()]
            if len(errors):
                self.log(f"{stage}/mean error/{label}", errors.mean(), sync_dist=True)
                self.log(f"{stage}/median error/{label}", errors.median(), sync_dist=True)


def _read_checkpoint(path: Any) -> dict[str, Any]:
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception as error:  # of whatever kind the bytes lead to
        raise ValueError(f"{path} is no checkpoint that can be read without unpickling what it holds.") from error
    if not isinstance(checkpoint, dict) or _LEARNER not in checkpoint:
        raise ValueError(
            f"{path} is no checkpoint of a MetaLearningModule: pass one that a run of it wrote, or learner= to fill with "
            "its weights."
        )
    return checkpoint


def _configuration(learner: MetaLearner) -> dict[str, Any] | None:
    """The learner's form; None where it has parts of the user's own, which a file cannot name."""
    try:
        return configuration(learner)
    except ValueError:
        return None


def learner_from_checkpoint(path: str | PathLike[str]) -> MetaLearner:
    """The learner in a checkpoint of :class:`MetaLearningModule`, ready for a front end: ``MetaKernelShap(f, learner=...)``.

    Where weights were averaged in training, these are the averages.
    """
    module = MetaLearningModule.load_from_checkpoint(path, map_location="cpu", weights_only=True)
    return module.learner.eval().requires_grad_(False)
