"""Explanation tasks: sources of models to learn from."""

from captum_meta.tasks.cache import ExplanationCache, TaskFamily
from captum_meta.tasks.distilled import DistillationTaskFamily
from captum_meta.tasks.explained_data import ExplainedData
from captum_meta.tasks.joining import collate_tasks
from captum_meta.tasks.labelling import LabelError
from captum_meta.tasks.model_family import ModelTaskFamily
from captum_meta.tasks.model_stream import ModelStream
from captum_meta.tasks.repeated import RepeatedTaskFamily
from captum_meta.tasks.synthetic import SyntheticTaskFamily
from captum_meta.types import ExplanationTask

__all__ = [
    "DistillationTaskFamily",
    "ExplainedData",
    "ExplanationCache",
    "ExplanationTask",
    "LabelError",
    "ModelStream",
    "ModelTaskFamily",
    "RepeatedTaskFamily",
    "SyntheticTaskFamily",
    "TaskFamily",
    "collate_tasks",
]
