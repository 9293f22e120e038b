"""The covariance under which a row's worths are most likely, near that which was guessed."""

from dataclasses import replace

import pytest
import torch

from captum_meta.estimators import (
    CoalitionPairs,
    HypercubePosterior,
    HypercubePrior,
    all_coalitions,
    likely_rates,
    remembered_rates,
    shapley_values,
)
from captum_meta.estimators.hypercube import HypercubeKernel

M = 5
NOWHERE = torch.zeros(1, M, dtype=torch.float64)
SOMEWHERE = torch.tensor([[1.0, 2.0, 0.5, 0.1, -1.0]], dtype=torch.float64)
PAIRS = all_coalitions(M)[[1, 2, 4, 8, 16, 3, 6, 12, 24, 20, 9]]
EVERYONE = torch.ones(M, dtype=torch.bool)


def game(seed: int = 0) -> torch.Tensor:
    """Additive in the last two players; the first three interact."""
    own = torch.randn(M, generator=torch.Generator().manual_seed(seed)).double()
    members = all_coalitions(M).double()
    return members @ own + 2 * members[:, :3].prod(-1)


def seen(worths: torch.Tensor, directions: torch.Tensor = NOWHERE) -> tuple[CoalitionPairs, HypercubePrior]:
    codes = (PAIRS * 2 ** torch.arange(M)).sum(-1)
    known, ones = torch.ones(len(PAIRS), dtype=torch.bool), torch.ones(M, dtype=torch.float64)
    pairs = CoalitionPairs(PAIRS, worths[codes] - worths[31 - codes], known, EVERYONE, worths[-1])
    return pairs, HypercubePrior(0 * ones, 0.3 * ones, 0.4 * ones, directions)


def surprise(pairs: CoalitionPairs, prior: HypercubePrior, additive: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """What is to be made small, written out for a row."""
    signs = torch.cat([EVERYONE.unsqueeze(0), pairs.members]).double() * 2 - 1
    residual = (torch.cat([pairs.total[None], pairs.differences]) - signs @ prior.mean) / 2
    among = HypercubeKernel(signs, additive, rates).with_pairs(signs)
    fit = len(signs) / 2 * torch.log(residual @ torch.linalg.solve(among, residual)) + torch.logdet(among) / 2
    changes = torch.cat([(additive / prior.additive).log(), rates.logit() - prior.rates.logit()])
    return fit + changes.square().sum() / 2


def both(prior: HypercubePrior) -> torch.Tensor:
    return torch.stack([prior.additive, prior.rates])


@pytest.mark.parametrize("directions", [NOWHERE, SOMEWHERE])
def test_they_are_those_of_greatest_likelihood(directions: torch.Tensor) -> None:
    pairs, prior = seen(game(), directions)
    logs = torch.stack([prior.additive.log(), prior.rates.logit()]).requires_grad_()
    optimizer = torch.optim.Adam([logs], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        least = surprise(pairs, prior, logs[0].exp(), logs[1].sigmoid())
        least.backward()
        optimizer.step()
    start, found = (surprise(pairs, prior, *both(each)) for each in (prior, likely_rates(pairs, prior)))
    assert -0.01 < found - least < 0.2 * (start - least)


def test_players_that_interact_are_told_from_those_that_do_not() -> None:
    rates = likely_rates(*seen(game())).rates
    assert rates[3:].max() < 0.33 < 0.39 < rates[:3].min()


def test_answers_are_nearer_by_them() -> None:
    for seed in range(3):
        worths = game(seed)
        pairs, prior = seen(worths)
        found = [HypercubePosterior(pairs, each).shapley_values() for each in (prior, likely_rates(pairs, prior))]
        before, after = ((each - shapley_values(worths)).square().sum() for each in found)
        assert after < 0.9 * before


def test_padding_other_rows_and_units_do_not_matter() -> None:
    pairs, prior = seen(game(), SOMEWHERE)
    alone = both(likely_rates(pairs, prior))
    two = torch.tensor(2.0)
    assert torch.allclose(both(likely_rates(pairs.times(two), prior.times(two))), alone, rtol=1e-4)
    wider = pairs.padded(M=M + 1, P=len(PAIRS) + 2)
    wider = replace(wider, differences=torch.where(wider.measured, wider.differences, 7.0))
    found = both(likely_rates(wider, prior.map(lambda part: torch.nn.functional.pad(part, (0, 1), value=0.5))))
    assert torch.allclose(found[:, :M], alone, rtol=1e-4) and (found[:, M] == 0).all()
    others = seen(game(3), SOMEWHERE)
    together = likely_rates(CoalitionPairs.stack([pairs, others[0]]), HypercubePrior.stack([prior, others[1]]))
    assert torch.allclose(both(together)[:, 0], alone, rtol=1e-4)


def test_the_guess_is_differentiable_and_nothing_remains_nothing() -> None:
    pairs, prior = seen(game())
    additive = prior.additive.clone().requires_grad_()
    rates = (prior.rates * torch.tensor([1.0, 1, 1, 1, 0])).requires_grad_()
    found = likely_rates(pairs, replace(prior, additive=additive, rates=rates))
    assert found.rates[-1] == 0
    slopes = torch.autograd.grad(both(found).sum(), [additive, rates])
    assert torch.allclose(slopes[0], (found.additive / additive).detach()) and (slopes[1] > 0).all()


def test_a_row_that_is_as_expected_stays_finite() -> None:
    assert both(likely_rates(*seen(torch.zeros(2**M, dtype=torch.float64)))).isfinite().all()


def test_a_row_has_the_rates_that_it_has_alone() -> None:
    """Rounding that differs with the batch stays rounding: single precision became 1e-4 of an attribution's size."""
    rows = [seen(game(seed), SOMEWHERE) for seed in range(6)]
    pairs, priors = zip(*rows, strict=True)
    together = both(likely_rates(CoalitionPairs.stack(pairs), HypercubePrior.stack(priors)))
    for number, row in enumerate(rows):
        assert torch.allclose(together[:, number], both(likely_rates(*row)), rtol=1e-9)


def test_rates_are_remembered_of_rows_whose_first_pairs_are_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    generator, ones = torch.Generator().manual_seed(0), torch.ones(3, M)
    members, measured = torch.rand(3, 90, M, generator=generator) < 0.5, torch.ones(3, 90, dtype=torch.bool)
    differences, players = torch.randn(3, 90, generator=generator), EVERYONE.expand(3, M)
    known = CoalitionPairs(members, differences, measured, players, differences.sum(1))
    prior = HypercubePrior(0 * ones, 0.3 * ones, 0.4 * ones, torch.zeros(3, 1, M))
    computed: list[int] = []

    def changes(pairs: CoalitionPairs, prior: HypercubePrior) -> torch.Tensor:
        computed.append(len(prior.rates))
        return torch.full((2, *prior.rates.shape), float(sum(computed)))

    monkeypatch.setattr("captum_meta.estimators.rate_likelihood._changes_of_rows", changes)
    with remembered_rates():
        first = likely_rates(known.shortened(P=85), prior).rates
        rows = torch.tensor([2, 0])
        assert torch.equal(likely_rates(known[rows], prior[rows]).rates, first[rows]) and computed == [3]
        moved = replace(known, differences=differences.index_fill(0, torch.tensor([1]), 0.5))
        assert (likely_rates(moved, prior).rates != first).any(1).tolist() == [False, True, False] and computed == [3, 1]
    likely_rates(known, prior)
    assert computed == [3, 1, 3]
