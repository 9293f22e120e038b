"""Online meta-learning."""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Generator, Tensor

from captum_meta.learners import MetaLearner
from captum_meta.losses import relative_errors
from captum_meta.training.buffer import TaskBuffer, is_finite_task
from captum_meta.training.guard import marked
from captum_meta.training.module import MetaLearningModule
from captum_meta.training.stream import TaskStream
from captum_meta.types import ExplanationTask

_ROUNDS = "captum_meta rounds"
"""Where a checkpoint keeps the errors by round and the buffer."""


class FollowTheMetaLeader(MetaLearningModule):
    r"""Follow the meta-leader (Finn et al. 2019): explain each task as it comes, then learn from all that have come.

    In round t the learner w adapts on the support rows and explains the query rows; the error of this is the round's, taken
    before anything is learned from its queries. Then the task joins the buffer B and the meta-parameters take ``steps``
    steps of AdamW down

    .. math:: \min_w \sum_{\tau \in B} L_\tau(w)

    where L is the learner's own loss. Each step draws ``tasks_per_step`` tasks from the buffer and deals out their rows anew
    to support and query. What a learner takes over in closed form, as
    :class:`~captum_meta.learners.TransferGaussianProcess` does, it then takes from the whole buffer
    (:meth:`~captum_meta.learners.MetaLearner.condition_on`). It is :class:`MetaLearningModule` with
    another order of tasks, and takes any :class:`MetaLearner`; it learns for the evidence that the stream measures. A batch
    is a round::

        Trainer(max_epochs=1).fit(FollowTheMetaLeader(load_learner("ridge")), TaskStream(family, support_rows=16))

    Logged as ``round/error`` and ``round/mean error`` (of all rounds until now), and kept in ``errors``. Random numbers
    follow from the seed and the round. A checkpoint holds learner, optimizer, buffer, errors and with them the round, and no
    explained model: ``fit(..., ckpt_path=...)`` goes on as if nothing had happened, and ``Trainer(max_epochs=-1)`` learns
    the rounds by which the stream has become longer. A round that is not finite is left out with a warning; its error is
    NaN.

    Args:
        learner: as for :class:`MetaLearningModule`.
        learning_rate: of AdamW, constant.
        steps: of gradient descent in a round. With 0 the explainer stays as it is, and ``ModelCheckpoint``, which counts
            steps, keeps nothing: call ``trainer.save_checkpoint``.
        tasks_per_step: drawn from the buffer, where it has as many.
        memory: tasks in the buffer; of more, the latest.
        weight_decay: of AdamW.
        clip: longest gradient.
        seed: of the tasks and rows drawn and of what the learner draws.

    Attributes:
        errors: of every round, mean over its tasks; :func:`~captum_meta.losses.relative_errors`.
        buffer: the tasks learned from.

    Raises:
        ValueError: if ``memory`` or ``tasks_per_step`` is not positive, or ``steps`` is negative.
    """

    def __init__(
        self,
        learner: MetaLearner,
        learning_rate: float = 2e-3,
        steps: int = 20,
        tasks_per_step: int = 8,
        memory: int = 64,
        weight_decay: float = 1e-4,
        clip: float = 1.0,
        seed: int = 0,
    ) -> None:
        if memory < 1 or tasks_per_step < 1 or steps < 0:
            raise ValueError(
                f"memory={memory}, tasks_per_step={tasks_per_step} and steps={steps}: the first two must be at least 1, "
                "and steps at least 0."
            )
        super().__init__(learner, learning_rate, weight_decay, warmup_steps=0, schedule="constant", seed=seed)
        self.automatic_optimization = False
        self.steps, self.tasks_per_step, self.memory, self.clip = steps, tasks_per_step, memory, clip
        self.buffer = TaskBuffer(memory)
        self.errors: list[float] = []

    def on_fit_start(self) -> None:
        # it saves the state after the round's steps, which is what is wanted here
        warnings.filterwarnings("ignore", message="Using ModelCheckpoint with manual optimization")
        warnings.filterwarnings("ignore", message="train_dataloader yielded None")  # the stream says which

    def training_step(self, batch: ExplanationTask, batch_idx: int) -> None:
        number = len(self.errors)
        if not is_finite_task(batch):
            warnings.warn(
                f"Round {number} is left out, for its evidence or attributions are not finite: check the model's outputs. "
                "What was learned before is kept.",
                stacklevel=2,
            )
            self.errors.append(torch.nan)
            return
        self.errors.append(float(self._error_before(batch)))
        self.buffer.add(batch)
        self.log("round/error", self.errors[-1], prog_bar=True, batch_size=1)
        self.log("round/mean error", torch.tensor(self.errors).nanmean(), prog_bar=True, batch_size=1)
        with self._keyed_random_numbers(number):
            self._follow(number)
        self.learner.condition_on([rows.to(self.device, self.dtype) for rows in self.buffer.rows()])

    def on_train_start(self) -> None:
        self._go_to_the_round()

    def on_train_epoch_start(self) -> None:
        self._go_to_the_round()  # Lightning skips this hook where it resumes within an epoch, and the other between epochs

    def _go_to_the_round(self) -> None:
        stream = self.trainer.train_dataloader
        if isinstance(stream, TaskStream):
            stream.first = len(self.errors)
            self.trainer.should_stop |= stream.first >= len(stream)

    def on_train_batch_end(self, outputs: Any, batch: ExplanationTask | None, batch_idx: int) -> None:
        if batch is None:
            self.errors.append(torch.nan)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        super().on_save_checkpoint(checkpoint)
        checkpoint[_ROUNDS] = {"errors": list(self.errors), "buffer": self.buffer.state_dict()}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        kept = checkpoint[_ROUNDS]
        self.errors = list(kept["errors"])
        self.buffer.load_state_dict(kept["buffer"])

    def configure_optimizers(self) -> Any:
        return super().configure_optimizers()["optimizer"]

    def _error_before(self, task: ExplanationTask) -> Tensor:
        self.learner.eval()
        try:
            with torch.no_grad():
                predicted = self.predict_step(task, 0)
        finally:
            self.learner.train()
        return relative_errors(predicted, task.query.attributions, task.query.variance).mean()

    def _follow(self, number: int) -> None:
        """The steps of a round; those whose gradient is not finite are not taken."""
        optimizer: Any = self.optimizers()
        generator = Generator().manual_seed(self.seed * 1_000_003 + number)
        left_out = 0
        for _ in range(self.steps):
            self.learner.begin_step(self.trainer.global_step)
            loss = self.learner.loss(self.buffer.draw(self.tasks_per_step, generator).to(self.device, self.dtype))
            optimizer.zero_grad()
            if loss.requires_grad:
                self.manual_backward(marked(loss))
            gradients = [p.grad for p in self.learner.parameters() if p.grad is not None]
            if not gradients or not all(gradient.isfinite().all() for gradient in gradients):
                left_out += 1
                continue
            self.clip_gradients(optimizer, gradient_clip_val=self.clip, gradient_clip_algorithm="norm")
            optimizer.step()
            self.log("train/loss", loss.detach(), batch_size=1)
        if left_out:
            warnings.warn(
                f"{left_out} of {self.steps} steps of round {number} were not taken, for they had no finite gradient. Where "
                "all coalitions were evaluated there is none, for answers are exact.",
                stacklevel=3,
            )
