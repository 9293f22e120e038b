from math import atan, atan2, cos, exp, sin, tan

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_meta.estimators import gauss_legendre, interval_weights, path_nodes
from captum_meta.estimators.path_nodes import PLACING

VALUES = torch.tensor([[0.0, 1.0, 2.0], [0.2, 1.0, 1.1], [3.0, 3.1, -2.0], [0.0, 1.0, 0.0]]).double()


@pytest.mark.parametrize("n", [2, 3, 10, 16])
def test_nodes_are_gauss_legendres_of_an_angle_that_f_halfway_tells(n: int) -> None:
    roots = (np.polynomial.legendre.leggauss(n)[0] + 1) / 2
    for row, (start, middle, end) in enumerate(VALUES.tolist()):
        angle = 2 * atan2(middle - start, end - middle)
        told = (1, cos(angle), sin(angle), cos(angle) / n, sin(angle) / n, 1 / n)
        m, log_w = (sum(a * b for a, b in zip(constants, told, strict=True)) for constants in PLACING)
        w = exp(log_w)
        low, high = atan((0 - m) / w), atan((1 - m) / w)
        expected = [m + w * tan(low + (high - low) * root) for root in roots]
        assert path_nodes(VALUES, n)[row].tolist() == pytest.approx(expected)


def test_units_sign_and_offset_of_the_output_do_not_matter() -> None:
    for other in (3 * VALUES, -VALUES, VALUES + 2):
        assert torch.allclose(path_nodes(other, 5), path_nodes(VALUES, 5))


def test_nodes_go_where_f_changes() -> None:
    early, even, late = path_nodes(torch.tensor([[0.0, 0.9, 1.0], [0.0, 0.5, 1.0], [0.0, 0.1, 1.0]]), 5).mean(1)
    assert early < even < late


@pytest.mark.parametrize("n", [1, 33, 40])
def test_a_single_node_and_many_are_gauss_legendres(n: int) -> None:
    assert torch.equal(path_nodes(VALUES, n), gauss_legendre(n)[0].expand(4, -1))


@pytest.mark.parametrize("value", [torch.nan, torch.inf, 1e-30, 1e30])
def test_nodes_ascend_between_the_ends_whatever_f_is(value: float) -> None:
    for values in (torch.tensor([[0.0, value, 1.0]]), torch.tensor([[value, value, value]])):
        edges = torch.cat([torch.zeros(1, 1).double(), path_nodes(values, 32), torch.ones(1, 1).double()], dim=1)
        assert (edges.diff() > 0).all()


def test_rounding_of_a_flat_output_moves_no_node() -> None:
    flat = torch.full((1, 3), 0.7)
    for place in range(3):
        rounded = flat.clone()
        rounded[0, place] = torch.nextafter(rounded[0, place], torch.tensor(1.0))
        assert torch.allclose(path_nodes(rounded, 5), path_nodes(flat, 5), atol=1e-3)


@pytest.mark.parametrize("n", [3, 5, 10])
def test_an_integrand_that_bends_near_the_baseline_is_integrated_better(n: int) -> None:
    """f is what a layer norm makes of a path from a small baseline to a large input."""

    def slope(t: Tensor) -> Tensor:
        return 0.01 / (t**2 + 0.01) ** 1.5

    t = torch.tensor([[0.0, 0.5, 1.0]]).double()
    known = t / (t**2 + 0.01).sqrt()
    right = known[0, 2].item()
    points = path_nodes(known, n)
    ours = ((interval_weights(points).sum(-2) * slope(points)).sum() - right).abs()
    nodes, weights = gauss_legendre(n)
    assert ours < 0.5 * ((weights * slope(nodes)).sum() - right).abs()
