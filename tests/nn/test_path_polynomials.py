"""Polynomials along a path, against least squares."""

import pytest
import torch
from torch import Tensor

from captum_meta.nn.path_polynomials import DEGREES, SHAPES, PathPolynomials


def problem(count: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(count)
    return torch.rand(count).double().sort()[0], torch.rand(count).double() + 0.1, torch.randn(count).double()


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_what_is_left_is_what_weighted_least_squares_leave(count: int) -> None:
    points, weights, values = problem(count)
    found = PathPolynomials.at(points, weights).without()
    for degree in range(DEGREES):
        powers = torch.stack([points**k for k in range(degree + 1)], dim=1)
        root = weights.sqrt()
        expected = torch.zeros(count).double()
        if count > degree + 1:
            best = torch.linalg.lstsq(root.unsqueeze(1) * powers, (root * values).unsqueeze(1)).solution
            expected = root * (values - (powers @ best).squeeze(1))
        assert torch.allclose(found[degree] @ values, expected, atol=1e-12)


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_weights_of_the_covariance_are_those_of_what_is_left(count: int) -> None:
    points, weights, values = problem(count)
    polynomials = PathPolynomials.at(points, weights)
    expected = torch.stack([left.T @ (left @ values) for left in polynomials.without()])
    assert torch.allclose(polynomials.covariance_rows(values), expected, atol=1e-12)


@pytest.mark.parametrize("count", [1, 3, 4, 7])
def test_coefficients_make_polynomials_again(count: int) -> None:
    points, weights, _ = problem(count)
    polynomials = PathPolynomials.at(points, weights)
    degree = min(SHAPES, count) - 1
    curve = (2 * points - 1) ** degree
    found = polynomials.coefficient_rows() @ curve
    assert found.shape == (SHAPES,) and (found[degree + 1 :] == 0).all() and found[degree] > 0
    assert torch.allclose(polynomials.basis @ found[: degree + 1], weights.sqrt() * curve)
