"""The process over inputs: what it says in closed form, against the same from all coalitions."""

import pytest
import torch
from torch import Tensor

from captum_meta.estimators import InputProcess, all_coalitions, shapley_values, value_distances

N_PLAYERS, N_BACKGROUND = 4, 5


def seats_of(members: Tensor, drawn: Tensor) -> Tensor:
    return torch.where(members, 0, drawn.unsqueeze(-1) + 1)


@pytest.fixture
def process() -> tuple[InputProcess, Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    distances = value_distances(torch.randn(2, 1 + N_BACKGROUND, N_PLAYERS, 2))
    seats = seats_of(torch.rand(2, 40, N_PLAYERS) < 0.5, torch.randint(N_BACKGROUND, (2, 40)))
    known = torch.rand(2, 40) < 0.8
    worths = torch.where(known, torch.randn(2, 40), torch.nan)
    return InputProcess(distances, seats, worths, known), distances, seats, worths


@pytest.mark.parametrize("shares", [torch.full((5,), 0.2), torch.tensor([0.5, 0.1, 0.1, 0.3, 0.0])])
def test_worths_and_shapley_values_are_those_of_the_expected_model(process, shares) -> None:
    members = all_coalitions(N_PLAYERS).expand(2, -1, -1)
    worths = sum(share * process[0].at(seats_of(members, torch.full((2, 16), k))) for k, share in enumerate(shares.double()))
    torch.testing.assert_close(process[0].mean_game(members, shares.double()), worths)
    torch.testing.assert_close(process[0].shapley_values(shares.double()), shapley_values(worths))


def test_what_was_seen_is_expected(process) -> None:
    torch.manual_seed(0)
    values = torch.randn(1, 1 + N_BACKGROUND, N_PLAYERS, 1)
    members = torch.rand(1, 60, N_PLAYERS) < 0.5
    seats = seats_of(members, torch.randint(N_BACKGROUND, (1, 60)))
    taken = values[0, :, :, 0].T.expand(60, -1, -1).gather(2, seats[0].unsqueeze(-1)).squeeze(-1)
    worths = (taken.sum(1) + torch.tanh(taken[:, 0] * taken[:, 1])).unsqueeze(0)
    found = InputProcess(value_distances(values), seats, 100 + 10 * worths, torch.ones(1, 60).bool())
    assert float((found.at(seats) - 100 - 10 * worths).square().mean()) < 0.01 * float(10 * worths.std()) ** 2


def test_players_whose_values_are_equal_get_nothing() -> None:
    torch.manual_seed(0)
    values = torch.randn(1, 1 + N_BACKGROUND, N_PLAYERS, 1)
    values[:, :, 2] = 0.3
    seats = seats_of(torch.rand(1, 30, N_PLAYERS) < 0.5, torch.randint(N_BACKGROUND, (1, 30)))
    found = InputProcess(value_distances(values), seats, torch.randn(1, 30), torch.ones(1, 30).bool())
    answer = found.shapley_values(torch.full((N_BACKGROUND,), 0.2).double())
    assert answer[0, 2] == 0 and bool(answer[0, [0, 1, 3]].all())


def test_answers_scale_and_shift_with_the_model(process) -> None:
    found, distances, seats, worths = process
    known = worths.isfinite()
    other = InputProcess(distances, seats, -8 * worths + 3, known)
    shares = torch.full((N_BACKGROUND,), 0.2).double()
    torch.testing.assert_close(other.shapley_values(shares), -8 * found.shapley_values(shares), rtol=1e-4, atol=1e-5)


def test_constant_models_have_no_effects() -> None:
    seats = seats_of(torch.rand(1, 30, N_PLAYERS) < 0.5, torch.randint(N_BACKGROUND, (1, 30)))
    distances = value_distances(torch.randn(1, 1 + N_BACKGROUND, N_PLAYERS, 1))
    found = InputProcess(distances, seats, torch.full((1, 30), 7.0), torch.ones(1, 30).bool())
    assert not found.shapley_values(torch.full((N_BACKGROUND,), 0.2).double()).any()
