"""Explainer networks: from evidence to attributions, equivariant in the players' order."""

from captum_meta.nn.blocks import PoolingBlock
from captum_meta.nn.evidence import EvidenceExplainer
from captum_meta.nn.explainer import Explainer, Prediction, Prior
from captum_meta.nn.path import PathExplainer
from captum_meta.nn.shapley import ShapleyExplainer

__all__ = ["EvidenceExplainer", "Explainer", "PathExplainer", "PoolingBlock", "Prediction", "Prior", "ShapleyExplainer"]
