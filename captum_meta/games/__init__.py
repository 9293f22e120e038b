"""The explained model as cooperative games: players, values and gradients."""

from captum_meta.games.batch import Batch
from captum_meta.games.batched import BatchedGames
from captum_meta.games.evaluation import Evaluation
from captum_meta.games.game import Game
from captum_meta.games.layer import LayerModel, layer_output
from captum_meta.games.mean import MeanGame
from captum_meta.games.outputs import OutputGame, each_output
from captum_meta.games.players import Players
from captum_meta.games.remembered import RememberedGame
from captum_meta.games.surrogate import SurrogateGame

__all__ = [
    "Batch",
    "BatchedGames",
    "Evaluation",
    "Game",
    "LayerModel",
    "MeanGame",
    "OutputGame",
    "Players",
    "RememberedGame",
    "SurrogateGame",
    "each_output",
    "layer_output",
]
