"""The order in which coalitions tell most, against a plain greedy choice by conditioning anew at every step."""

import pytest
import torch

from captum_meta.estimators import all_coalitions
from captum_meta.estimators.design import telling_coalitions
from captum_meta.estimators.hypercube import HypercubeKernel


def left(n_players: int, members: torch.Tensor, border: bool = True) -> float:
    """Summed variance of the Shapley values that everyone, the border and these pairs leave."""
    ones = torch.ones(n_players).double()
    first = torch.cat([torch.ones(1, n_players), 2 * torch.eye(n_players) - 1])[: None if border else 1]
    signs = torch.cat([first, members * 2.0 - 1]).double()
    kernel = HypercubeKernel(signs, 0.3 * ones, 4 / (n_players + 4) * ones)
    cross, among = kernel.with_shapley_values(), kernel.with_pairs(signs)
    among = among + 1e-8 * among[0, 0] * torch.eye(len(signs))
    return float(kernel.of_shapley_values().sum() - (cross * torch.linalg.solve(among, cross)).sum())


@pytest.mark.parametrize("n_players", [4, 5, 7])
def test_each_is_the_best_next_one(n_players: int) -> None:
    inside = all_coalitions(n_players)[1 : 2 ** (n_players - 1)]
    inside = inside[(inside.sum(-1) > 1) & (inside.sum(-1) < n_players - 1)]
    found = telling_coalitions(n_players, 6)
    for number in range(len(found)):
        others = [left(n_players, torch.cat([found[:number], one[None]])) for one in inside]
        assert left(n_players, found[: number + 1]) <= min(others) * (1 + 1e-3)


@pytest.mark.parametrize("n_players", [4, 5, 7])
def test_without_the_border_each_is_the_best_of_all(n_players: int) -> None:
    every = all_coalitions(n_players)[1 : 2 ** (n_players - 1)]
    found = telling_coalitions(n_players, 7, border=False)
    for number in range(len(found)):
        others = [left(n_players, torch.cat([found[:number], one[None]]), border=False) for one in every]
        assert left(n_players, found[: number + 1], border=False) <= min(others) * (1 + 1e-3)


@pytest.mark.parametrize(
    ("n_players", "count"), [(2, 3), (3, 3), (4, 9), (6, 40), (12, 700), (16, 300), (40, 300), (150, 90)]
)
def test_are_different_pairs_inside_the_border_until_there_are_no_more(n_players: int, count: int) -> None:
    found = telling_coalitions(n_players, count)
    assert len(found) == min(count, max(0, 2 ** (n_players - 1) - 1 - n_players))
    sizes = found.sum(-1)
    assert ((sizes > 1) & (2 * sizes <= n_players)).all()
    assert len(torch.cat([found, ~found]).unique(dim=0)) == 2 * len(found)
    assert torch.equal(telling_coalitions(n_players, count // 2), found[: count // 2])


def test_leave_less_than_coin_flips_and_than_small_coalitions() -> None:
    flips = torch.rand(20, 30, 14, generator=torch.Generator().manual_seed(0)) < 0.5
    small = all_coalitions(14)
    small = small[small.sum(-1) == 2][:30]
    assert left(14, telling_coalitions(14, 30)) < 0.85 * min(left(14, some) for some in [*flips, small])
