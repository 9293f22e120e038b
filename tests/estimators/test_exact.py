from itertools import permutations

import pytest
import torch

from captum_meta.estimators import all_coalitions, shapley_values


def by_permutations(worths: torch.Tensor) -> torch.Tensor:
    n_players = (len(worths) - 1).bit_length()
    values = torch.zeros(n_players, dtype=worths.dtype)
    orders = list(permutations(range(n_players)))
    for order in orders:
        code = 0
        for player in order:
            values[player] += worths[code | 1 << player] - worths[code]
            code |= 1 << player
    return values / len(orders)


@pytest.mark.parametrize("n_players", [1, 2, 5])
def test_equals_mean_over_all_orders(n_players: int) -> None:
    worths = torch.randn(2**n_players, dtype=torch.float64, generator=torch.Generator().manual_seed(n_players))
    assert torch.allclose(shapley_values(worths), by_permutations(worths), atol=1e-12)


def test_unanimity_game_is_shared_by_its_members() -> None:
    members = all_coalitions(4)
    worths = (members[:, 0] & members[:, 2]).double()
    assert torch.allclose(shapley_values(worths), torch.tensor([0.5, 0, 0.5, 0]).double())


def test_needs_all_coalitions() -> None:
    with pytest.raises(ValueError, match="all 2\\*\\*M"):
        shapley_values(torch.zeros(7))
