"""What is measured on the explained model: players, coalitions and gradients along the path."""

from captum_meta.evidence.game import Game
from captum_meta.evidence.layer import LayerModel, layer_output
from captum_meta.evidence.measure import (
    ShapleyMeasurement,
    measure_shapley,
    measure_support,
    with_elements,
)
from captum_meta.evidence.padding import pad_coalitions, pad_elements, pad_players
from captum_meta.evidence.path import measure_bent_path, measure_path, path_slopes
from captum_meta.evidence.players import Players

__all__ = [
    "Game",
    "LayerModel",
    "Players",
    "ShapleyMeasurement",
    "layer_output",
    "measure_bent_path",
    "measure_path",
    "measure_shapley",
    "measure_support",
    "pad_coalitions",
    "pad_elements",
    "pad_players",
    "path_slopes",
    "with_elements",
]
