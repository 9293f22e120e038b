"""Meta-training on Lightning."""

from captum_meta.training.attribution_callback import AttributionCallback
from captum_meta.training.data import ExplanationTaskDataModule
from captum_meta.training.module import MetaLearningModule, learner_from_checkpoint

__all__ = ["AttributionCallback", "ExplanationTaskDataModule", "MetaLearningModule", "learner_from_checkpoint"]
