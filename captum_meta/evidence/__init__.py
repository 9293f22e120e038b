"""What is measured on the explained model: players, coalitions and gradients along the path."""

from captum_meta.evidence.measure import measure_shapley, measure_support
from captum_meta.evidence.padding import joined
from captum_meta.evidence.pairs import PairMeasurement
from captum_meta.evidence.path import measure_bent_path, measure_path, path_gradients
from captum_meta.evidence.path_rounds import Integrals, integrate_in_rounds
from captum_meta.evidence.plan import EvidencePlan, PathPlan, ShapleyPlan
from captum_meta.evidence.rows import row_keys, with_elements
from captum_meta.evidence.shapley import ShapleyMeasurement
from captum_meta.games import Game, LayerModel, Players, layer_output

__all__ = [
    "EvidencePlan",
    "Game",
    "Integrals",
    "LayerModel",
    "PairMeasurement",
    "PathPlan",
    "Players",
    "ShapleyMeasurement",
    "ShapleyPlan",
    "integrate_in_rounds",
    "joined",
    "layer_output",
    "measure_bent_path",
    "measure_path",
    "measure_shapley",
    "measure_support",
    "path_gradients",
    "row_keys",
    "with_elements",
]
