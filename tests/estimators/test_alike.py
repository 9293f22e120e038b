"""Shapley values as a matrix of coalitions, against the posterior with all players alike and against enumeration."""

import pytest
import torch

from captum_meta.estimators import (
    CoalitionPairs,
    HypercubePosterior,
    HypercubePrior,
    all_coalitions,
    plan_coalitions,
    shapley_matrix,
    shapley_values,
)


def game(n_players: int) -> torch.Tensor:
    """Worths of all coalitions of a saturated sum."""
    weights = torch.randn(n_players, generator=torch.Generator().manual_seed(0)).double()
    worths = torch.tanh(all_coalitions(n_players).double() @ weights + 0.3)
    return worths - worths[0]


@pytest.mark.parametrize("budget", [20, 40])
def test_it_is_the_posterior_with_all_players_alike(budget: int) -> None:
    n_players = 7
    worths, everyone = game(n_players), torch.ones(1, n_players, dtype=torch.bool)
    members = plan_coalitions(everyone, budget, 0, torch.tensor([1]))[0][0, ::2]
    codes = (members * 2 ** torch.arange(n_players)).sum(1)
    differences = worths[codes] - worths[2**n_players - 1 - codes]
    pairs = CoalitionPairs(members, differences, torch.ones(len(members)).bool(), everyone[0], worths[-1])
    ones = torch.ones(n_players).double()
    prior = HypercubePrior(0 * ones, 0.3 * ones, 4 / (n_players + 4) * ones, torch.zeros(1, n_players))
    posterior = HypercubePosterior(pairs, prior)
    seen = torch.cat([worths[-1:], differences]) / 2
    found = shapley_matrix(torch.cat([everyone, members])) @ seen
    assert torch.allclose(found, posterior.shapley_values(), atol=1e-7)
    assert torch.isclose(found.sum(), worths[-1])


def test_it_is_exact_from_all_coalitions() -> None:
    worths, everything = game(5), all_coalitions(5)
    half = everything.flip(0)[:16]
    assert torch.allclose(shapley_matrix(half) @ (worths.flip(0)[:16] - worths[:16]) / 2, shapley_values(worths), atol=1e-7)
