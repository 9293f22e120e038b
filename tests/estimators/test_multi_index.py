from math import sin

import pytest
import torch

from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.estimators.multi_index import MultiIndexWaves, spectrum

N_PLAYERS = 5


def directions(seed: int, n_directions: int = 2) -> torch.Tensor:
    return torch.randn(n_directions, N_PLAYERS, generator=torch.Generator().manual_seed(seed)).double()


def every_sign() -> torch.Tensor:
    return all_coalitions(N_PLAYERS).double() * 2 - 1


@pytest.mark.parametrize("n_directions", [1, 2, 4])
def test_shapley_values_are_those_of_the_enumerated_waves(n_directions: int) -> None:
    waves = MultiIndexWaves(directions(0, n_directions))
    worths = waves.at(every_sign())
    expected = torch.stack([shapley_values(worth - worth[0]) for worth in worths.T])
    assert torch.allclose(waves.shapley_values(), expected, atol=1e-9)


def test_many_players_against_permutations() -> None:
    n_players = 40
    generator = torch.Generator().manual_seed(2)
    waves = MultiIndexWaves(torch.randn(1, n_players, generator=generator).double())
    order = torch.rand(4000, n_players, generator=generator).argsort(-1)
    rank = torch.cat([order, order.flip(-1)]).argsort(-1)
    signs = (rank.unsqueeze(1) < torch.arange(n_players + 1).unsqueeze(1)).double() * 2 - 1
    steps = waves.at(signs).diff(dim=1)
    sampled = steps.gather(1, rank.unsqueeze(-1).expand_as(steps)).mean(0).T
    assert (sampled - waves.shapley_values()).abs().max() < 0.03 * sampled.abs().max()


def test_waves_are_odd_functions_of_the_indices_alone() -> None:
    along = directions(1)
    waves = MultiIndexWaves(along)
    one = waves.at(every_sign())
    assert torch.allclose(waves.at(-every_sign()), -one, atol=1e-12)
    same = torch.tensor([[1.0, 1.0, 0, 0, 0], [0, 0, 1.0, 1.0, 0]]).double()
    swapped = torch.tensor([[1.0, -1.0, 1.0, -1.0, 1.0], [-1.0, 1.0, -1.0, 1.0, 1.0]]).double()
    first, second = MultiIndexWaves(same).at(swapped)
    assert torch.allclose(first, second)


def test_the_covariance_of_one_direction_is_written_out() -> None:
    along = torch.tensor([[2.0, -1.0, 1.0, 0.0, 0.0]]).double()
    covariance = MultiIndexWaves(along).at(every_sign())
    covariance = covariance @ covariance.T
    joint = 2.0 * torch.randn(64, 1, generator=torch.Generator().manual_seed(1)).double()
    matern = [(1 + (0.3 * (q + 0.5) * torch.pi) ** 2) ** -2 for q in range(8)]
    for i, j in ((3, 17), (8, 8), (30, 1)):
        u, v = (float(every_sign()[row] @ along[0]) / 4 for row in (i, j))
        smooth = sum(sin(w * u) * sin(w * v) for w in joint.flatten().tolist()) / 64
        bent = sum(a * sin((q + 0.5) * torch.pi * u) * sin((q + 0.5) * torch.pi * v) for q, a in enumerate(matern))
        assert float(covariance[i, j]) == pytest.approx((smooth + bent / sum(matern)) / 2, abs=1e-12)


def test_lengths_do_not_matter_and_zeros_say_nothing() -> None:
    along = directions(3)
    assert torch.allclose(MultiIndexWaves(along * 7).shapley_values(), MultiIndexWaves(along).shapley_values())
    nothing = MultiIndexWaves(torch.zeros(2, N_PLAYERS).double())
    assert (nothing.at(every_sign()) == 0).all() and (nothing.shapley_values() == 0).all()


def test_differentiable_in_the_directions() -> None:
    along = directions(4, 1).requires_grad_()
    signs = every_sign()[::7]
    probe = torch.linspace(-1, 1, N_PLAYERS).double()

    def function(g: torch.Tensor) -> torch.Tensor:
        waves = MultiIndexWaves(g)
        return waves.at(signs).sum() + (waves.shapley_values() @ probe).cos().sum()

    assert torch.autograd.gradcheck(function, (along,))


def test_a_player_that_no_direction_names_gets_nothing() -> None:
    along = directions(5)
    along[:, 3] = 0
    assert (MultiIndexWaves(along).shapley_values()[:, 3] == 0).all()


def test_what_inference_mode_has_seen_first_can_still_be_differentiated() -> None:
    spectrum.cache_clear()
    with torch.inference_mode():
        MultiIndexWaves(directions(6, 3)).shapley_values()
    along = directions(6, 3).requires_grad_()
    MultiIndexWaves(along).shapley_values().square().sum().backward()
    assert along.grad is not None and bool(along.grad.isfinite().all())
