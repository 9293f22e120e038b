"""The variance of permutation sampling, against all permutations."""

from itertools import permutations

import pytest
import torch
from torch import Tensor

from captum_meta.estimators import all_coalitions, permutation_variance
from captum_meta.evidence import Game, measure_shapley

M = 6


def pair_game(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(M, generator=generator).double(), torch.randn(M, M, generator=generator).double().triu(1)


def gains(order: tuple[int, ...], worth: dict[tuple[bool, ...], float]) -> list[float]:
    present, before, found = [False] * M, worth[(False,) * M], [0.0] * M
    for player in order:
        present[player] = True
        found[player] = worth[tuple(present)] - before
        before = worth[tuple(present)]
    return found


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_is_that_of_all_orders_for_games_of_pairs(seed: int) -> None:
    alone, pairs = pair_game(seed)

    def model(x: Tensor) -> Tensor:
        return x @ alone + ((x @ pairs) * x).sum(1)

    x = torch.ones(1, M).double()
    worth = {tuple(m.tolist()): float(model(m.double()[None])) for m in all_coalitions(M)}
    every = torch.tensor([gains(order, worth) for order in permutations(range(M))])
    expected = every.var(0, unbiased=False).sum()
    found = permutation_variance(measure_shapley(Game(model, x), 2**M - 2))
    assert float(found) == pytest.approx(float(expected), rel=0.2)


def test_additive_games_have_none_and_the_border_alone_tells_a_part() -> None:
    x = torch.randn(3, M).double()
    assert permutation_variance(measure_shapley(Game(lambda x: x.sum(1), x), 30)).abs().max() < 1e-20
    alone, pairs = pair_game(3)
    game = Game(lambda x: x @ alone + ((x @ pairs) * x).sum(1), x)
    border, more = (permutation_variance(measure_shapley(game, n)) for n in (2 * M, 2**M - 2))
    assert (border > 0).all() and (border < more).all()
