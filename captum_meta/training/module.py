"""The one Lightning module that meta-trains every learner."""

from __future__ import annotations

from math import cos, pi
from typing import Any

import torch
from lightning import LightningModule
from torch import Tensor

from captum_meta.learners import MetaLearner
from captum_meta.losses import relative_errors
from captum_meta.types import ExplanationTask


class MetaLearningModule(LightningModule):
    """Meta-train a learner: minimise ``learner.loss`` over batches of explanation tasks.

    Args:
        learner: the meta-learner; its parameters are what is trained.
        learning_rate: of AdamW, after a linear warm-up; it falls to nothing along a cosine.
        weight_decay: of AdamW.
        warmup_steps: steps of the warm-up.
    """

    def __init__(
        self, learner: MetaLearner, learning_rate: float = 2e-3, weight_decay: float = 1e-4, warmup_steps: int = 200
    ) -> None:
        super().__init__()
        self.learner = learner
        self.learning_rate, self.weight_decay, self.warmup_steps = learning_rate, weight_decay, warmup_steps

    def training_step(self, batch: ExplanationTask, batch_idx: int) -> Tensor:
        loss = self.learner.loss(batch)
        self.log("train/loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: ExplanationTask, batch_idx: int) -> None:
        predicted = self.learner.predict(self.learner.adapt(batch.support), batch.query.evidence)
        errors = relative_errors(predicted, batch.query.attributions, batch.query.variance)
        self.log("validation/error", errors.clamp(max=3).mean(), prog_bar=True, batch_size=len(errors))
        self.log("validation/log error", (errors + 1e-3).log().mean(), batch_size=len(errors))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.learner.parameters(), self.learning_rate, weight_decay=self.weight_decay)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, self._rate)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _rate(self, step: int) -> float:
        total = max(1, int(self.trainer.estimated_stepping_batches))
        return min(1.0, (step + 1) / self.warmup_steps) * (0.5 + 0.5 * cos(pi * min(1.0, step / total)))
