from math import prod

import pytest
import torch

from captum_meta.estimators import HypercubePosterior, all_coalitions, plan_coalitions, shapley_values

N_PLAYERS = 5
TAU = [0.3, 0.01, 0.2, 0.5, 0.1]
RHO = [0.4, 0.2, 0.3, 0.7, 0.3]


def covariance(s: torch.Tensor, t: torch.Tensor) -> float:
    """The module's formula, written out, with the even part and a constant that pairs are said to make irrelevant."""
    signs = [(1 if a else -1) * (1 if b else -1) for a, b in zip(s.tolist(), t.tolist(), strict=True)]
    norm = prod(1 + r for r in RHO)
    interactions = prod(1 + r * x for r, x in zip(RHO, signs, strict=True)) - 1
    interactions -= sum(r * x for r, x in zip(RHO, signs, strict=True))
    return 10 * (1 + sum(TAU)) + sum(a * x for a, x in zip(TAU, signs, strict=True)) + interactions / norm


def game(seed: int) -> torch.Tensor:
    worths = torch.randn(2**N_PLAYERS, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return worths - worths[0]


def posterior(worths: torch.Tensor, codes: list[int], prior: torch.Tensor) -> HypercubePosterior:
    """From the coalitions of ``codes`` and their complements."""
    complements = [31 - code for code in codes]
    return HypercubePosterior(
        all_coalitions(N_PLAYERS)[codes],
        worths[codes] - worths[complements],
        torch.ones(len(codes), dtype=torch.bool),
        torch.ones(N_PLAYERS, dtype=torch.bool),
        worths[-1],
        prior,
        torch.tensor(TAU, dtype=torch.float64),
        torch.tensor(RHO, dtype=torch.float64),
    )


def estimate(worths: torch.Tensor, codes: list[int], prior: torch.Tensor) -> torch.Tensor:
    return posterior(worths, codes, prior).shapley_values()


@pytest.mark.parametrize("seed", range(3))
def test_is_the_shapley_value_of_the_gaussian_process_mean(seed: int) -> None:
    worths, codes = game(seed), [1, 2, 6, 9, 21]
    prior = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5], dtype=torch.float64)
    everything = all_coalitions(N_PLAYERS)
    seen = [0, 31, *codes, *(31 - code for code in codes)]
    additive = everything.double() @ prior
    among = torch.tensor([[covariance(everything[a], everything[b]) for b in seen] for a in seen], dtype=torch.float64)
    towards = torch.tensor(
        [[covariance(everything[a], everything[b]) for b in seen] for a in range(32)], dtype=torch.float64
    )
    mean = additive + towards @ torch.linalg.solve(among, (worths - additive)[seen])
    assert torch.allclose(estimate(worths, codes, prior), shapley_values(mean), atol=1e-6)


def test_variance_is_that_of_the_gaussian_process_at_the_amplitude_of_left_out_pairs() -> None:
    worths, codes = game(4), [1, 2, 6, 9, 21]
    everything = all_coalitions(N_PLAYERS)
    seen = [31, *codes]
    whole = torch.tensor([[covariance(a, b) for b in everything] for a in everything], dtype=torch.float64)
    odd = (whole - whole.flip(1)) / 2
    among, towards = odd[seen][:, seen], odd[:, seen]
    functional = torch.stack([shapley_values(row) for row in torch.eye(32, dtype=torch.float64)], dim=1)
    remaining = odd - towards @ torch.linalg.solve(among, towards.T)
    values = (worths - worths.flip(0))[seen] / 2
    standardised = []
    for left_out in range(len(seen)):
        others = [i for i in range(len(seen)) if i != left_out]
        weights = torch.linalg.solve(among[others][:, others], among[others, left_out])
        error = values[left_out] - weights @ values[others]
        standardised.append(error**2 / (among[left_out, left_out] - weights @ among[others, left_out]))
    expected = (functional @ remaining @ functional.T).diagonal() * torch.stack(standardised).mean()
    variance = posterior(worths, codes, torch.zeros(N_PLAYERS).double()).shapley_variance()
    assert torch.allclose(variance, expected, rtol=1e-4)


def test_is_exact_when_all_worths_are_known() -> None:
    worths = game(7)
    values = estimate(worths, list(range(1, 16)), torch.zeros(N_PLAYERS).double())
    assert torch.allclose(values, shapley_values(worths), atol=1e-4)


def test_a_true_prior_of_an_additive_game_is_not_moved() -> None:
    prior = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]).double()
    worths = all_coalitions(N_PLAYERS).double() @ prior
    assert torch.allclose(estimate(worths, [3, 5, 17], prior), prior, atol=1e-9)


def test_efficiency_padding_and_scale() -> None:
    players = torch.tensor([[True] * 6, [True, True, False, True, True, False]])
    members, measured = (part[:, ::2] for part in plan_coalitions(players, 20, 0, torch.arange(2)))
    generator = torch.Generator().manual_seed(0)
    worths = torch.randn(measured.shape, dtype=torch.float64, generator=generator)
    total = torch.tensor([1.5, -2.0]).double()
    rates = torch.rand(2, 6, generator=generator) * 0.8
    noise = torch.where(measured, worths, torch.nan)
    values = HypercubePosterior(members, noise, measured, players, total, rates * 0, rates, rates).shapley_values()
    assert torch.allclose(values.sum(-1), total, atol=1e-6)
    assert (values[~players] == 0).all()
    double = HypercubePosterior(members, 2 * noise, measured, players, 2 * total, rates * 0, rates, rates)
    assert torch.allclose(double.shapley_values(), 2 * values, atol=1e-9)
    variance = double.shapley_variance()
    assert (variance[players] > 0).all() and (variance[~players] == 0).all()


def test_the_prior_covariance_is_differentiable() -> None:
    worths, codes = game(1), [1, 2, 4, 8, 16, 7]
    differences = worths[codes] - worths.flip(0)[codes]
    additive = torch.tensor(TAU, dtype=torch.float64).requires_grad_()
    rates = torch.tensor(RHO, dtype=torch.float64).requires_grad_()
    players = torch.ones(N_PLAYERS, dtype=torch.bool)
    known = torch.ones(len(codes), dtype=torch.bool)
    members = all_coalitions(N_PLAYERS)[codes]

    def function(tau: torch.Tensor, rho: torch.Tensor) -> torch.Tensor:
        prior = torch.zeros(N_PLAYERS).double()
        return HypercubePosterior(members, differences, known, players, worths[-1], prior, tau, rho).shapley_values()

    assert torch.autograd.gradcheck(function, (additive, rates), eps=1e-5, atol=1e-4)


def test_where_nothing_is_expected_the_prior_stands() -> None:
    worths, codes = game(2), [1, 2, 6]
    nothing = torch.zeros(N_PLAYERS, dtype=torch.float64)
    prior = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]).double()
    differences = worths[codes] - worths.flip(0)[codes]
    known, players = torch.ones(3, dtype=torch.bool), torch.ones(N_PLAYERS, dtype=torch.bool)
    members = all_coalitions(N_PLAYERS)[codes]
    found = HypercubePosterior(members, differences, known, players, worths[-1], prior, nothing, nothing)
    assert torch.allclose(found.shapley_values(), prior)
