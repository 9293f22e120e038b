from dataclasses import replace
from math import prod

import pytest
import torch

from captum_meta.estimators import (
    CoalitionPairs,
    HypercubePosterior,
    HypercubePrior,
    all_coalitions,
    plan_coalitions,
    shapley_values,
)
from captum_meta.estimators.conditioning import Given, conditioned
from captum_meta.estimators.hypercube import HypercubeKernel
from captum_meta.estimators.kernel_sampling import sampled_pairs
from captum_meta.estimators.multi_index import MultiIndexWaves

N_PLAYERS = 5
TAU = [0.3, 0.01, 0.2, 0.5, 0.1]
RHO = [0.4, 0.2, 0.3, 0.7, 0.3]
SHARES, LOG_PRIOR = [0.0, 2.0, 50.0], [0.0, 0.0, -1.5]
NOWHERE = torch.zeros(1, N_PLAYERS, dtype=torch.float64)
SOMEWHERE = torch.tensor([[1.0, 2.0, 0.5, 0.1, -1.0], [0.0, 1.0, -1.0, 0.5, 2.0]], dtype=torch.float64)


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


def odd_covariances(directions: torch.Tensor) -> list[torch.Tensor]:
    """Of all 32 coalitions, for each share of the waves along the directions."""
    everything = all_coalitions(N_PLAYERS)
    whole = torch.tensor([[covariance(a, b) for b in everything] for a in everything], dtype=torch.float64)
    odd = (whole - whole.flip(1)) / 2
    waves = MultiIndexWaves(directions).at(everything.double() * 2 - 1)
    return [odd + share * odd[0, 0] * waves @ waves.T for share in SHARES]


def tempered_weights(among: list[torch.Tensor], values: torch.Tensor) -> torch.Tensor:
    """Of each covariance, by the square root of the density of the values at the amplitude that makes it largest."""
    logs = []
    for each, prior in zip(among, LOG_PRIOR, strict=True):
        amplitude = values @ torch.linalg.solve(each, values) / len(values)
        normal = torch.distributions.MultivariateNormal(torch.zeros_like(values), amplitude * each)
        logs.append(0.5 * normal.log_prob(values) + prior)
    return torch.stack(logs).softmax(0)


def pairs(worths: torch.Tensor, codes: list[int]) -> CoalitionPairs:
    """The coalitions of ``codes``, and their complements."""
    n_players = len(worths).bit_length() - 1
    known, players = torch.ones(len(codes), dtype=torch.bool), torch.ones(n_players, dtype=torch.bool)
    differences = worths[codes] - worths.flip(0)[codes]
    return CoalitionPairs(all_coalitions(n_players)[codes], differences, known, players, worths[-1])


def posterior(
    worths: torch.Tensor, codes: list[int], prior: torch.Tensor, directions: torch.Tensor = NOWHERE
) -> HypercubePosterior:
    tau, rho = torch.tensor(TAU, dtype=torch.float64), torch.tensor(RHO, dtype=torch.float64)
    return HypercubePosterior(pairs(worths, codes), HypercubePrior(prior, tau, rho, directions))


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


@pytest.mark.parametrize("directions", [NOWHERE, SOMEWHERE])
def test_mean_and_variance_are_those_of_the_mixture_of_gaussian_processes(directions: torch.Tensor) -> None:
    worths, codes = game(4), [1, 2, 6, 9, 21]
    seen = [31, *codes]
    functional = torch.stack([shapley_values(row) for row in torch.eye(32, dtype=torch.float64)], dim=1)
    values = (worths - worths.flip(0))[seen] / 2
    odds = odd_covariances(directions)
    weights = tempered_weights([odd[seen][:, seen] for odd in odds], values)
    means, variances = [], []
    for odd in odds:
        among, towards = odd[seen][:, seen], odd[:, seen]
        remaining = odd - towards @ torch.linalg.solve(among, towards.T)
        amplitude = values @ torch.linalg.solve(among, values) / len(values)
        means.append(functional @ towards @ torch.linalg.solve(among, values))
        variances.append((functional @ remaining @ functional.T).diagonal() * amplitude)
    mean = weights @ torch.stack(means)
    variance = weights @ (torch.stack(variances) + (torch.stack(means) - mean).square())
    found = posterior(worths, codes, torch.zeros(N_PLAYERS).double(), directions)
    assert torch.allclose(found.shapley_values(), mean, atol=1e-6)
    assert torch.allclose(found.shapley_variance(), variance, rtol=1e-4)


def test_a_bent_line_along_a_direction_is_seen_through() -> None:
    """What no single-player rates explain: a saturated function of one weighted sum."""
    n_players = 14
    weights = torch.linspace(0.2, 1.5, n_players).double()
    everything = all_coalitions(n_players)
    worths = torch.sigmoid(everything.double() @ weights - 0.5 * weights.sum() - 2)
    worths = worths - worths[0]
    border = torch.eye(n_players, dtype=torch.bool)
    members = torch.cat([border, sampled_pairs(n_players, n_players, border[:0], 0, torch.zeros(1).long())[0]])
    seen = pairs(worths, (members.long() * 2 ** torch.arange(n_players)).sum(-1).tolist())
    exact, even = shapley_values(worths), torch.full((n_players,), float(worths[-1]) / n_players).double()
    errors = []
    for along in (torch.zeros_like(weights), weights):
        tau, rho = torch.full((n_players,), 0.1).double(), torch.full((n_players,), 0.1).double()
        found = HypercubePosterior(seen, HypercubePrior(even, tau, rho, along[None]))
        errors.append(float((found.shapley_values() - exact).square().sum()))
    assert errors[1] < 0.1 * errors[0]


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
    along = torch.randn(2, 3, 6, generator=generator)
    seen, prior = CoalitionPairs(members, noise, measured, players, total), HypercubePrior(0 * rates, rates, rates, along)
    values = HypercubePosterior(seen, prior).shapley_values()
    assert torch.allclose(values.sum(-1), total, atol=1e-6)
    assert (values[~players] == 0).all()
    double = HypercubePosterior(seen.times(torch.tensor(2.0)), prior)
    assert torch.allclose(double.shapley_values(), 2 * values, atol=1e-9)
    variance = double.shapley_variance()
    assert (variance[players] > 0).all() and (variance[~players] == 0).all()


def test_the_prior_covariance_is_differentiable() -> None:
    worths, codes = game(1), [1, 2, 4, 8, 16, 7]
    additive = torch.tensor(TAU, dtype=torch.float64).requires_grad_()
    rates = torch.tensor(RHO, dtype=torch.float64).requires_grad_()
    apart = 0.01 * torch.randn(SOMEWHERE.shape, generator=torch.Generator().manual_seed(0)).double()
    along = (SOMEWHERE + apart).requires_grad_()  # at SOMEWHERE a wave's cosine is 0, whose gradient is lost to rounding

    def function(tau: torch.Tensor, rho: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
        prior = HypercubePrior(torch.zeros(N_PLAYERS).double(), tau, rho, g)
        return HypercubePosterior(pairs(worths, codes), prior).shapley_values()

    assert torch.autograd.gradcheck(function, (additive, rates, along), eps=1e-5, atol=1e-4)


def test_where_nothing_is_expected_the_prior_stands() -> None:
    worths, codes = game(2), [1, 2, 6]
    nothing = torch.zeros(N_PLAYERS, dtype=torch.float64)
    prior = torch.tensor([1.0, -2.0, 0.5, 0.0, 3.0]).double()
    found = HypercubePosterior(pairs(worths, codes), HypercubePrior(prior, nothing, nothing, NOWHERE))
    assert torch.allclose(found.shapley_values(), prior)


@pytest.mark.parametrize("directions", [NOWHERE, SOMEWHERE])
def test_differences_expected_of_further_pairs(directions: torch.Tensor) -> None:
    worths, codes = game(3), [1, 2, 6, 9, 21]
    prior = torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5], dtype=torch.float64)
    everything = all_coalitions(N_PLAYERS)
    additive = (everything.double() * 2 - 1) @ prior
    seen = [31, *codes]
    differences = worths - worths.flip(0)
    values = (differences - additive)[seen] / 2
    odds = odd_covariances(directions)
    weights = tempered_weights([odd[seen][:, seen] for odd in odds], values)
    means = torch.stack([odd[:, seen] @ torch.linalg.solve(odd[seen][:, seen], values) for odd in odds])
    found = posterior(worths, codes, prior, directions).differences(everything)
    assert torch.allclose(found, additive + 2 * weights @ means, atol=1e-6)
    assert torch.allclose(found[seen], differences[seen], atol=1e-6)


def test_fewer_waves_than_pairs_are_taken_by_woodbury() -> None:
    generator = torch.Generator().manual_seed(0)

    def draw(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, dtype=torch.float64, generator=generator)

    among, residual, values, waves, of_waves = draw(30, 30), draw(30, 1), draw(30, 6), draw(30, 4), draw(4, 6)
    among = among @ among.T + torch.eye(30)
    padded = torch.nn.functional.pad(waves, (0, 40)), torch.nn.functional.pad(of_waves, (0, 0, 0, 40))
    few, many = conditioned(among, residual, values, waves, of_waves), conditioned(among, residual, values, *padded)
    other = draw(30, 1)
    for one, two in zip(few, many, strict=True):
        assert (two.inner is None) and (one.inner is None) == (one is few[0])
        assert torch.allclose(one.surprise, two.surprise) and torch.allclose(one.log_volume(), two.log_volume())
        assert torch.allclose(one.correction(), two.correction()) and torch.allclose(one.known(), two.known())
        firsts = [Given(given.share, given.base.first(12)) for given in (one, two)]
        for x, y in ((one, two), firsts):
            assert torch.allclose(x.correction_from(x.base.residual), y.correction())
            assert torch.allclose(x.surprise, y.surprise) and torch.allclose(x.known(), y.known())
        assert torch.allclose(one.coefficients(), two.coefficients(), atol=1e-9)
        left_out = [given.left_out(given.base.whitened(torch.eye(30).double())) for given in (one, two)]
        assert torch.allclose(*left_out, atol=1e-9)
        moved = [given.correction_from(given.base.whitened(other)) for given in (one, two)]
        assert torch.allclose(*moved)


def test_the_lower_triangle_is_made_some_rows_after_others() -> None:
    generator = torch.Generator().manual_seed(0)
    signs = (torch.rand(2, 150, 9, generator=generator) < 0.5).double() * 2 - 1
    kernel = HypercubeKernel(signs, *torch.rand(2, 2, 9, generator=generator).double() / 2)
    assert torch.allclose(kernel.among_pairs().tril(), kernel.with_pairs(signs).tril(), atol=1e-12)


def test_answers_of_half_the_pairs_and_of_another_prior() -> None:
    worths, codes = game(5), [1, 2, 4, 8, 16, 7, 11]
    prior, other = NOWHERE[0], torch.tensor([0.3, -0.1, 0.0, 1.0, 0.4]).double()
    found = posterior(worths, codes, prior)
    assert torch.allclose(found.shapley_values_of_half(), estimate(worths, codes[:3], prior))
    assert torch.allclose(found.shapley_values_from(other), estimate(worths, codes, other))
    assert torch.allclose(found.shapley_values_from(prior), found.shapley_values())


def test_late_surprises_are_errors_of_pairs_predicted_from_those_before() -> None:
    worths, codes = game(6), [1, 2, 4, 8, 16, 7, 11]
    seen = [31, *codes]
    values, odd = ((worths - worths.flip(0)) / 2)[seen], odd_covariances(NOWHERE)[0][seen][:, seen]
    squares = []
    for number in range(len(seen)):
        kept = torch.linalg.solve(odd[:number, :number], odd[:number, number])
        variance = odd[number, number] - kept @ odd[:number, number]
        squares.append((values[number] - kept @ values[:number]) ** 2 / variance)
    late = torch.stack(squares)[4:]
    wanted = torch.stack([late.mean(), late.max()]) / torch.stack(squares).mean()
    assert torch.allclose(posterior(worths, codes, NOWHERE[0]).late_surprises(), wanted, rtol=1e-5)
    nothing = posterior(torch.zeros(32).double(), codes, NOWHERE[0]).late_surprises()
    assert torch.equal(nothing, torch.ones(2).double())


@pytest.mark.parametrize("directions", [NOWHERE, SOMEWHERE])
def test_each_pair_is_predicted_from_all_others(directions: torch.Tensor) -> None:
    worths, codes, prior = game(4), [1, 2, 6, 9, 21], torch.tensor([0.1, -0.2, 0.3, 0.0, 0.5]).double()
    seen = [31, *codes]
    differences = worths - worths.flip(0)
    additive = (all_coalitions(N_PLAYERS).double() * 2 - 1) @ prior
    values, odds = (differences - additive)[seen] / 2, [odd[seen][:, seen] for odd in odd_covariances(directions)]
    weights, missed = tempered_weights(odds, values), []
    for number in range(1, len(seen)):
        others = [place for place in range(len(seen)) if place != number]
        expected = [odd[number, others] @ torch.linalg.solve(odd[others][:, others], values[others]) for odd in odds]
        missed.append(2 * (values[number] - weights @ torch.stack(expected)))
    assert torch.allclose(posterior(worths, codes, prior, directions).left_out(), torch.stack(missed), atol=1e-6)
    padded = pairs(worths, codes)
    padded = replace(padded, measured=torch.tensor([True, True, False, True, True]))
    hypercube = HypercubePrior(prior, torch.tensor(TAU).double(), torch.tensor(RHO).double(), directions)
    fewer = posterior(worths, [1, 2, 9, 21], prior, directions).left_out()
    assert torch.allclose(HypercubePosterior(padded, hypercube).left_out()[[0, 1, 3, 4]], fewer, atol=1e-6)
    assert HypercubePosterior(padded, hypercube).left_out()[2] == 0
