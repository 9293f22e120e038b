"""Meta-training on Lightning."""

from captum_meta.training.data import ExplanationTaskDataModule
from captum_meta.training.module import MetaLearningModule

__all__ = ["ExplanationTaskDataModule", "MetaLearningModule"]
