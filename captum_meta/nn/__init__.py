"""Explainer networks, from evidence to attributions, equivariant in the players' order; and similarities of rows."""

from captum_meta.nn.blocks import PoolingBlock
from captum_meta.nn.descent import LearnedDescent
from captum_meta.nn.distillation import Distillation
from captum_meta.nn.encoders import EmbeddingEncoder, Encoder, EvidenceEncoder, InputEncoder, RawInputs
from captum_meta.nn.error_head import ErrorHead
from captum_meta.nn.evidence import EvidenceExplainer
from captum_meta.nn.explainer import Explainer, Prediction, Prior
from captum_meta.nn.growth import deepened
from captum_meta.nn.path import PathExplainer
from captum_meta.nn.shapley import ShapleyExplainer
from captum_meta.nn.similarities import (
    AttentionSimilarity,
    CosineSimilarity,
    DistanceSimilarity,
    EuclideanSimilarity,
    MLPSimilarity,
    Similarity,
)

__all__ = [
    "AttentionSimilarity",
    "CosineSimilarity",
    "DistanceSimilarity",
    "Distillation",
    "EmbeddingEncoder",
    "Encoder",
    "ErrorHead",
    "EuclideanSimilarity",
    "EvidenceEncoder",
    "EvidenceExplainer",
    "Explainer",
    "InputEncoder",
    "LearnedDescent",
    "MLPSimilarity",
    "PathExplainer",
    "PoolingBlock",
    "Prediction",
    "Prior",
    "RawInputs",
    "ShapleyExplainer",
    "Similarity",
    "deepened",
]
