"""Gradients that jump between the nodes of a path, from the definition."""

import numpy as np
import torch
from torch import Tensor

from captum_meta.estimators import gauss_legendre
from captum_meta.estimators.jumps import jump_corrections

N_NODES, FINE = 8, 40_000


def trapezia() -> Tensor:
    """Weights of the nodes in each interval, ``(N_NODES + 1, N_NODES)``; at the ends of the path those of the next node."""
    nodes = gauss_legendre(N_NODES)[0].double()
    widths = torch.cat([torch.zeros(1), nodes, torch.ones(1)]).double().diff()
    halves = torch.eye(N_NODES, dtype=torch.float64)
    left, right = torch.cat([halves[:1], halves]), torch.cat([halves, halves[-1:]])
    return (left + right) / 2 * widths.unsqueeze(1)


TRAPEZIA = trapezia()


def along(gradient: Tensor, moved: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Quadrature, correction and integral of gradients ``(FINE, E)`` at midpoints, over a straight path of activations."""
    nodes = gauss_legendre(N_NODES)[0].double()
    values = torch.cat([torch.zeros(1, dtype=torch.float64), (gradient @ moved).cumsum(0) / FINE])
    seen = gradient[(nodes * FINE).long()].mT.unsqueeze(0)
    ends = torch.cat([torch.zeros(1), nodes, torch.ones(1)]).double()
    f = values[(ends * FINE).round().long()].unsqueeze(0)
    path = (moved.unsqueeze(1) * ends).unsqueeze(0)
    found = jump_corrections(nodes.unsqueeze(0), TRAPEZIA.unsqueeze(0), seen, path, f)
    return (seen @ TRAPEZIA.sum(0))[0], found[0], gradient.mean(0)


def error(values: Tensor, right: Tensor) -> float:
    return float((values - right).square().sum() / right.square().sum())


def test_places_of_single_jumps_are_told_by_f() -> None:
    generator = torch.Generator().manual_seed(0)
    grid, moved = (torch.arange(FINE) + 0.5) / FINE, torch.randn(12, generator=generator).double()
    steps = torch.randn(3, 12, generator=generator).double()
    places = torch.tensor([0.06, 0.45, 0.83])
    gradient = torch.stack([(grid > place).double() for place in places], dim=1) @ steps
    plain, correction, right = along(gradient, moved)
    assert error(plain + correction, right) < 0.1 * error(plain, right)


def test_smooth_gradients_are_left_as_they_are() -> None:
    grid = ((torch.arange(FINE) + 0.5) / FINE).double()
    gradient = torch.stack([torch.sin(3 * grid * place) for place in (1, 2, 3)], dim=1)
    plain, correction, right = along(gradient, torch.tensor([1.0, -2.0, 0.5]).double())
    assert error(plain + correction, right) < max(1.5 * error(plain, right), 1e-8)


def test_nothing_known_is_nothing_corrected() -> None:
    gradient = torch.ones(FINE, 3, dtype=torch.float64)
    plain, correction, right = along(gradient, torch.zeros(3).double())
    assert not correction.any() and np.isclose(error(plain, right), 0)
