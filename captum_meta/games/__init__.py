"""The explained model as cooperative games: who plays, and what may be asked of the model."""

from captum_meta.games.batch import Batch
from captum_meta.games.evaluation import Evaluation
from captum_meta.games.game import Game
from captum_meta.games.mean import MeanGame
from captum_meta.games.players import Players
from captum_meta.games.remembered import RememberedGame

__all__ = ["Batch", "Evaluation", "Game", "MeanGame", "Players", "RememberedGame"]
