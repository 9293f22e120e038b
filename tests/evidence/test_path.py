"""Gradients along paths, derived again one node at a time."""

import pytest
import torch
from torch import nn

from captum_meta.estimators import gauss_legendre, path_nodes
from captum_meta.evidence import Game, measure_bent_path, measure_path


def test_paths() -> None:
    x, model = torch.randn(3, 4).double(), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    nodes = gauss_legendre(3)[0]
    evidence, gradients, _ = measure_path(Game(model, x, 0.5, 1), nodes)
    for place, node in enumerate(nodes):
        at = (0.5 + node * (x - 0.5)).requires_grad_()
        value = model(at)[:, 1]
        gradient = torch.autograd.grad(value.sum(), at)[0]
        assert torch.allclose(gradients[..., place], gradient)
        assert torch.allclose(evidence.effects[..., place], gradient * (x - 0.5))
        start = model(torch.full_like(x, 0.5))[:, 1]
        assert torch.allclose(evidence.curve[:, place], value - start)
        assert torch.allclose(evidence.total, model(x)[:, 1] - start)


def test_bent_paths_are_paths_at_nodes_that_f_halfway_places() -> None:
    x, model = 3 * torch.randn(3, 4).double(), nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)).double()
    game = Game(model, x, 0.5, 1)
    evidence, gradients, _ = measure_bent_path(game, 3)
    values = torch.stack([model(0.5 + part * (x - 0.5))[:, 1] for part in (0, 0.5, 1)], dim=-1)
    assert torch.allclose(evidence.points, path_nodes(values, 3))
    for row in range(3):
        alone, own, _ = measure_path(game.take(torch.tensor([row])), evidence.points[row])
        assert torch.allclose(own, gradients[row : row + 1])
        for name in ("effects", "curve", "total"):
            assert torch.allclose(getattr(alone, name), getattr(evidence, name)[row : row + 1])


@pytest.mark.parametrize("n", [1, 33])
def test_one_gradient_and_many_are_at_the_same_nodes_for_all_rows(n: int) -> None:
    game = Game(lambda x: x.sin().sum(1), torch.randn(3, 4))
    bent, even = measure_bent_path(game, n)[0], measure_path(game, gauss_legendre(n)[0])[0]
    assert all(torch.equal(getattr(bent, name), getattr(even, name)) for name in ("effects", "curve", "total", "points"))


def test_paths_need_a_gradient_and_one_output() -> None:
    with pytest.raises(RuntimeError, match="MetaKernelShap"):
        measure_path(Game(lambda x: (x > 0).float().sum(1), torch.randn(2, 3)), torch.tensor([0.5]))
    with pytest.raises(AssertionError, match="pass target"):
        measure_path(Game(lambda x: x, torch.randn(2, 3)), torch.tensor([0.5]))
    with pytest.raises(RuntimeError, match="MetaKernelShap"):
        measure_bent_path(Game(lambda x: (x > 0).float().sum(1), torch.randn(2, 3)), 3)
    with pytest.raises(AssertionError, match="pass target"):
        measure_bent_path(Game(lambda x: x, torch.randn(2, 3)), 3)
