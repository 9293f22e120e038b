"""Interactions of probabilities: likelihoods by the densities of distributions, and games whose better way is known."""

from math import log, pi

import pytest
import torch
from torch import Tensor

from captum_meta.estimators import InteractionProcess, ProbabilityProcess, all_coalitions, interactions

M = 7
EVERYTHING = all_coalitions(M)


@pytest.fixture
def chosen() -> Tensor:
    return torch.cat([torch.tensor([0, 2**M - 1]), 1 + torch.randperm(2**M - 2)[:40]])


def seen(game: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What a process is given of one game, of which one worth is not known."""
    known = torch.arange(len(chosen)) != 5
    values = torch.where(known, game[chosen], torch.nan)
    directions = torch.zeros(1, 1, M, dtype=torch.float64)
    return EVERYTHING[chosen].unsqueeze(0), values.unsqueeze(0), known.unsqueeze(0), torch.ones(1, M).bool(), directions


def score() -> Tensor:
    """A sum of pairs."""
    members = EVERYTHING.double()
    return members @ torch.randn(M).double() + torch.einsum("si,ij,sj->s", members, torch.randn(M, M).double(), members)


def log_density(process: InteractionProcess, values: Tensor, members: Tensor) -> float:
    """Of the values of a game, normal with the fitted covariance times the amplitude of largest density."""
    signs = members.double().unsqueeze(0) * 2 - 1
    covariance = process.kernel.between(signs, signs)[0] + 10
    covariance += 1e-10 * covariance.diag().diag()
    centred = values - values.mean()
    amplitude = centred @ torch.linalg.solve(covariance, centred) / len(values)
    normal = torch.distributions.MultivariateNormal(values.mean().expand_as(values), amplitude * covariance)
    return float(normal.log_prob(values))


def test_log_likelihood_is_that_of_a_normal_density(chosen: Tensor) -> None:
    game = score()
    given = seen(game, chosen)
    process, known = InteractionProcess(*given), given[2][0]
    expected = log_density(process, game[chosen][known], EVERYTHING[chosen][known])
    count = int(known.sum())
    assert float(process.log_likelihood) - count * (1 + log(2 * pi)) / 2 == pytest.approx(expected, abs=1e-3)


def test_share_is_that_of_the_densities_of_the_values(chosen: Tensor) -> None:
    def logit(values: Tensor) -> Tensor:
        return torch.log((values + 1e-6) / (1 - values + 1e-6))

    game = 0.4 + 0.2 * torch.rand(2**M, dtype=torch.float64).sort().values
    given = seen(game, chosen)
    known, values, step = given[2], game[chosen], 1e-6
    steepness = (logit(values + step) - logit(values - step)) / (2 * step)
    plain = InteractionProcess(*given)
    of_logits = InteractionProcess(given[0], logit(given[1]), *given[2:])
    ratio = of_logits.log_likelihood - plain.log_likelihood + steepness[known[0]].log().sum()
    share = float(ProbabilityProcess(*given).share)
    assert 0.01 < share < 0.99
    assert share == pytest.approx(1 / (1 + float((-ratio / 2).exp())), abs=1e-4)


def test_the_process_follows_what_suits_the_game(chosen: Tensor) -> None:
    logits = 3 * (score() - score().mean()) / score().std()
    for game, of_logits in ((torch.sigmoid(logits), True), ((logits - logits.min()) / (logits.max() - logits.min()), False)):
        given, truth = seen(game, chosen), interactions(game)
        process, plain = ProbabilityProcess(*given), InteractionProcess(*given)
        errors = [(interactions(part.all_worths()[0]) - truth).square().sum() for part in (process, plain)]
        assert (float(process.share) > 0.99) == of_logits
        assert (float(process.share) < 0.01) != of_logits
        assert errors[0] < errors[1] / 4 if of_logits else errors[0] < 1.1 * errors[1]


def test_passes_through_what_was_seen_at_both_ends_too(chosen: Tensor) -> None:
    game = torch.sigmoid(20 * score()).float().double()
    assert (game == 1).any()
    given = seen(game, chosen)
    found = ProbabilityProcess(*given).all_worths()[0][chosen]
    assert torch.allclose(found[given[2][0]], game[chosen][given[2][0]], atol=1e-5)
