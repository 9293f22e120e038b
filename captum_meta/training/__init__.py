"""Meta-training on Lightning."""

from captum_meta.training.attribution_callback import AttributionCallback
from captum_meta.training.attribution_files import read_attributions
from captum_meta.training.attribution_predictor import AttributionPredictor, whole_batches
from captum_meta.training.attribution_writer import AttributionWriter
from captum_meta.training.data import ExplanationTaskDataModule
from captum_meta.training.hindsight import best_in_hindsight, stream_errors
from captum_meta.training.module import MetaLearningModule, learner_from_checkpoint
from captum_meta.training.online import FollowTheMetaLeader
from captum_meta.training.stream import TaskStream

__all__ = [
    "AttributionCallback",
    "AttributionPredictor",
    "AttributionWriter",
    "ExplanationTaskDataModule",
    "FollowTheMetaLeader",
    "MetaLearningModule",
    "TaskStream",
    "best_in_hindsight",
    "learner_from_checkpoint",
    "read_attributions",
    "stream_errors",
    "whole_batches",
]
