"""Meta-training on Lightning."""

from captum_meta.training.data import ExplanationTaskDataModule
from captum_meta.training.module import MetaLearningModule, learner_from_checkpoint

__all__ = ["ExplanationTaskDataModule", "MetaLearningModule", "learner_from_checkpoint"]
