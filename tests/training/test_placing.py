"""The search for the constants that place nodes."""

import torch
from torch import Tensor

from captum_meta.estimators import gauss_legendre
from captum_meta.training.path_nodes import GRID, Curves, fit, log_error, measure


def bends(place: float) -> Curves:
    """Rows of three players whose gradients peak at ``place``, more or less sharply."""
    width = torch.linspace(0.1, 0.3, 6).reshape(-1, 1, 1)
    peak = 1 / (1 + ((GRID - place) / width) ** 2)
    return Curves.of(torch.cat([peak, peak * GRID, -peak / 2], dim=1))


def even(curves: Curves, n: int) -> Tensor:
    return curves.error(gauss_legendre(n)[0].float().expand(len(curves.right), -1))


def test_curves_know_their_integrals_and_values() -> None:
    curves = Curves.of(torch.stack([GRID, torch.ones_like(GRID)]).unsqueeze(0))
    assert torch.allclose(curves.right, torch.tensor([[0.5, 1.0]]))
    assert torch.allclose(curves.values, torch.tensor([[0.0, 0.625, 1.5]]), atol=1e-4)
    assert even(curves, 2).item() < 1e-9


def test_errors_fall_with_the_number_of_nodes() -> None:
    means = [even(bends(0.2), n).mean() for n in (3, 5, 10)]
    assert means[0] > 2 * means[1] > 4 * means[2]


def test_constants_are_found_that_place_nodes_better() -> None:
    constants = fit([bends(0.05), bends(0.1)], steps=60)
    for n in (3, 5):
        assert log_error(bends(0.075), n, constants).mean() < (even(bends(0.075), n) + 1e-6).log().mean() - 0.2


def test_what_is_measured_are_the_familys_rows() -> None:
    curves = measure(3, 2, rows=2)
    assert all(one.effects.shape[-1] == len(GRID) and one.effects.isfinite().all() for one in curves)
    assert all(torch.allclose(one.values[:, 2], one.right.sum(-1), atol=1e-4) for one in curves)
