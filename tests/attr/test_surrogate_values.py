"""Shapley values of networks, beside those of all coalitions."""

import pytest
import torch
from torch import Tensor

from captum_meta.attr._surrogate_values import values_of_surrogate
from captum_meta.games import SurrogateGame
from captum_meta.games.references import exact_shapley_values


@pytest.mark.parametrize(("n_players", "most"), [(9, 1e-10), (13, 1e-10), (16, 2e-4)])
def test_errors_are_small_beside_those_of_explanations(n_players: int, most: float) -> None:
    """A steep bend, of which 4,096 coalitions of 16 players miss more."""
    weights = torch.linspace(-1, 2, n_players)

    def bent(members: Tensor) -> Tensor:
        return (20 * (members @ weights) / weights.sum() - 5).sigmoid()

    found = values_of_surrogate(SurrogateGame(bent, torch.ones(1, n_players)))
    exact = exact_shapley_values(lambda members: bent(members.float()), n_players)
    assert (found - exact).square().sum() < most * exact.square().sum()
