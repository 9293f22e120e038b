"""Explanation tasks: sources of models to learn from."""

from captum_meta.tasks.synthetic import SyntheticTaskFamily
from captum_meta.types import ExplanationTask

__all__ = ["ExplanationTask", "SyntheticTaskFamily"]
