"""Checks of gradients by further values of f."""

import torch
from torch import Tensor

from captum_meta.estimators import gauss_legendre
from captum_meta.evidence import Game, path_gradients
from captum_meta.evidence.consistency import inconsistent_rows, stepping_rows, wrong_rows


def jumps_or_is_detached(x: Tensor) -> Tensor:
    """f jumps along the first input; of the second its gradient is half of what it is."""
    return x[:, 0] + (x[:, 0] > 0.35) + x[:, 1] * x[:, 1].detach() + x[:, 2]


def test_checks_ask_for_f_side_by_side() -> None:
    calls: list[int] = []

    def model(x: Tensor) -> Tensor:
        calls.append(len(x))
        return jumps_or_is_detached(x)

    game, nodes = Game(model, torch.eye(3)), gauss_legendre(4)[0]
    ends = game.at(torch.tensor([0.0, 1.0])).squeeze(-1)
    gradients, values = path_gradients(game, nodes)
    sums, total = (gradients * game.difference.unsqueeze(-1)).sum(1), ends[:, 1] - ends[:, 0]
    path = nodes.expand(3, -1), sums, values - ends[:, :1], total
    calls.clear()
    assert wrong_rows(game, *path).tolist() == [True, True, False]
    together = len(calls)
    calls.clear()
    assert inconsistent_rows(game, *path).tolist() == [True, False, False]
    assert together == len(calls) == 4  # an interval is cut four times, slopes are looked at twice


def test_a_jump_is_found_where_it_is() -> None:
    game = Game(jumps_or_is_detached, torch.eye(3))
    game.at(torch.ones(1))
    between, least = torch.tensor([[0.0, 1.0]] * 3).double().numpy(), torch.tensor([0.5, 0.5, 0.0]).double().numpy()
    assert stepping_rows(game, between, least).tolist() == [True, False, False]
