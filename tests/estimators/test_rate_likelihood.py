"""The covariance under which a row's worths are most likely, near that which was guessed."""

import pytest
import torch

from captum_meta.estimators import HypercubePosterior, all_coalitions, likely_rates, shapley_values
from captum_meta.estimators.hypercube import HypercubeKernel
from captum_meta.estimators.multi_index import MultiIndexWaves

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


def seen(worths: torch.Tensor, directions: torch.Tensor = NOWHERE) -> list[torch.Tensor]:
    codes = (PAIRS * 2 ** torch.arange(M)).sum(-1)
    differences = worths[codes] - worths[31 - codes]
    known = torch.ones(len(PAIRS), dtype=torch.bool)
    guess = [torch.full((M,), 0.3, dtype=torch.float64), torch.full((M,), 0.4, dtype=torch.float64)]
    return [PAIRS, differences, known, EVERYONE, worths[-1], torch.zeros(M).double(), *guess, directions]


def surprise(arguments: list[torch.Tensor], additive: torch.Tensor, rates: torch.Tensor) -> torch.Tensor:
    """What is to be made small, written out for a row."""
    members, differences, _, _, total, prior, guess, guessed, directions = arguments
    signs = torch.cat([EVERYONE.unsqueeze(0), members]).double() * 2 - 1
    residual = (torch.cat([total[None], differences]) - signs @ prior) / 2
    among = HypercubeKernel(signs, additive, rates).with_pairs(signs)
    waves = MultiIndexWaves(directions).at(signs)
    among = among + among[0, 0].detach() * waves @ waves.T
    fit = len(signs) / 2 * torch.log(residual @ torch.linalg.solve(among, residual)) + torch.logdet(among) / 2
    changes = torch.cat([(additive / guess).log(), rates.logit() - guessed.logit()])
    return fit + changes.square().sum()


@pytest.mark.parametrize("directions", [NOWHERE, SOMEWHERE])
def test_they_are_those_of_greatest_likelihood(directions: torch.Tensor) -> None:
    arguments = seen(game(), directions)
    logs = torch.stack([arguments[6].log(), arguments[7].logit()]).requires_grad_()
    optimizer = torch.optim.Adam([logs], 0.05)
    for _ in range(300):
        optimizer.zero_grad()
        least = surprise(arguments, logs[0].exp(), logs[1].sigmoid())
        least.backward()
        optimizer.step()
    start, found = surprise(arguments, *arguments[6:8]), surprise(arguments, *likely_rates(*arguments))
    assert -0.01 < found - least < 0.45 * (start - least)


def test_players_that_interact_are_told_from_those_that_do_not() -> None:
    _, rates = likely_rates(*seen(game()))
    assert rates[3:].max() < 0.33 < 0.39 < rates[:3].min()


def test_answers_are_nearer_by_them() -> None:
    for seed in range(3):
        worths = game(seed)
        arguments = seen(worths)
        better = [*arguments[:6], *likely_rates(*arguments), NOWHERE]
        right = shapley_values(worths)
        before, after = ((HypercubePosterior(*some).shapley_values() - right).square().sum() for some in (arguments, better))
        assert after < 0.9 * before


def test_padding_other_rows_and_units_do_not_matter() -> None:
    arguments = seen(game(), SOMEWHERE)
    alone = torch.stack(likely_rates(*arguments))
    double = [part * 2 if number in (1, 4) else part for number, part in enumerate(arguments)]
    assert torch.allclose(torch.stack(likely_rates(*double)), alone, rtol=1e-4)
    pad = torch.nn.functional.pad
    members, differences, measured, players, total, prior, additive, rates, directions = arguments
    wider = [
        pad(members, (0, 1, 0, 2)),
        pad(differences, (0, 2), value=7.0),
        pad(measured, (0, 2)),
        pad(players, (0, 1)),
        total,
    ]
    wider += [pad(part, (0, 1), value=0.5) for part in (prior, additive, rates, directions)]
    found = torch.stack(likely_rates(*wider))
    assert torch.allclose(found[:, :M], alone, rtol=1e-4) and (found[:, M] == 0).all()
    both = [torch.stack(parts) for parts in zip(arguments, seen(game(3), SOMEWHERE), strict=True)]
    assert torch.allclose(torch.stack(likely_rates(*both))[:, 0], alone, rtol=1e-4)


def test_the_guess_is_differentiable_and_nothing_remains_nothing() -> None:
    arguments = seen(game())
    arguments[6] = arguments[6].clone().requires_grad_()
    arguments[7] = (arguments[7] * torch.tensor([1.0, 1, 1, 1, 0])).requires_grad_()
    additive, rates = likely_rates(*arguments)
    assert rates[-1] == 0
    slopes = torch.autograd.grad(additive.sum() + rates.sum(), arguments[6:8])
    assert torch.allclose(slopes[0], (additive / arguments[6]).detach()) and (slopes[1] > 0).all()


def test_a_row_that_is_as_expected_stays_finite() -> None:
    arguments = seen(torch.zeros(2**M, dtype=torch.float64))
    assert all(part.isfinite().all() for part in likely_rates(*arguments))


def test_a_row_has_the_rates_that_it_has_alone() -> None:
    """Rounding that differs with the batch stays rounding: single precision became 1e-4 of an attribution's size."""
    rows = [seen(game(seed), SOMEWHERE) for seed in range(6)]
    together = likely_rates(*(torch.stack(parts) for parts in zip(*rows, strict=True)))
    for number, row in enumerate(rows):
        for many, one in zip(together, likely_rates(*row), strict=True):
            assert torch.allclose(many[number], one, rtol=1e-9)
