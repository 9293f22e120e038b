import numpy as np
import pytest
import torch
from numpy.polynomial import Polynomial

from captum_meta.estimators import gauss_legendre, interval_weights, path_nodes, quadrature_weights


@pytest.mark.parametrize("n", [1, 3, 8])
def test_gauss_legendre_integrates_polynomials_of_degree_2n_minus_1(n: int) -> None:
    nodes, weights = gauss_legendre(n)
    for degree in range(2 * n):
        assert torch.isclose((weights * nodes**degree).sum(), torch.tensor(1 / (degree + 1)).double())


@pytest.mark.parametrize("n", [1, 2, 3, 10, 32])
def test_interval_weights_at_gauss_legendre_nodes_add_up_to_the_rule(n: int) -> None:
    points, expected = gauss_legendre(n)
    assert torch.allclose(interval_weights(points).sum(0), expected, atol=1e-13)


def test_interval_weights_at_gauss_legendre_nodes_integrate_the_interpolating_polynomial() -> None:
    points = gauss_legendre(4)[0]
    values = np.array([1.0, -2.0, 0.5, 3.0])
    polynomial = Polynomial.fit(points.numpy(), values, 3).integ()
    edges = np.array([0.0, *points.tolist(), 1.0])
    assert np.allclose(interval_weights(points).numpy() @ values, np.diff(polynomial(edges)), atol=1e-12)


def test_interval_weights_elsewhere_interpolate_where_the_points_are_gauss_legendres() -> None:
    points, values = torch.tensor([[0.1, 0.3, 0.8], [0.2, 0.6, 0.7]]), np.array([1.0, -2.0, 0.5])
    nodes = gauss_legendre(3)[0].numpy()
    edges = np.array([0.0, *nodes, 1.0])
    for row, expected in enumerate(points.double().numpy()):
        path = Polynomial.fit(edges, np.array([0.0, *expected, 1.0]), 4)
        integral = (Polynomial.fit(nodes, values, 2).convert() * path.deriv().convert()).integ()
        assert np.allclose(interval_weights(points)[row].numpy() @ values, np.diff(integral(edges)), atol=1e-9)
        assert np.allclose(interval_weights(points)[row].sum(-1), np.diff([0.0, *expected, 1.0]), atol=1e-9)


@pytest.mark.parametrize("points", [[0.1, 0.3, 0.5, 0.7, 0.9], [0.0, 0.25, 0.5, 0.75, 1.0], [0.2, 0.4, 0.6, 0.8, 1.0]])
def test_points_of_a_riemann_sum_stand_for_equal_steps(points: list[float]) -> None:
    weights = interval_weights(torch.tensor(points))
    assert torch.allclose(weights.sum(0), torch.full((5,), 0.2).double())
    assert torch.allclose(weights.sum(1), torch.tensor([0.0, *points, 1.0]).double().diff())
    assert (weights >= 0).all()


def test_many_points_stand_for_steps_in_the_rules_weights() -> None:
    nodes, expected = gauss_legendre(33)
    weights = interval_weights(nodes)
    assert torch.allclose(weights.sum(0), expected) and (weights >= 0).all()


def test_no_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="n_steps >= 1"):
        gauss_legendre(0)


@pytest.mark.parametrize("n", [1, 2, 3, 10, 32, 40])
@pytest.mark.parametrize("kind", ["bent", "even", "both"])
def test_quadrature_weights_are_those_of_the_intervals_together(n: int, kind: str) -> None:
    bent = path_nodes(torch.tensor([[0.0, 1.0, 2.0], [0.0, 1.9, 2.0]]), n)
    even = ((torch.arange(n) + 0.5) / n).double().expand(2, -1)
    points = {"bent": bent, "even": even, "both": torch.stack([bent[0], even[0]])}[kind]
    assert np.allclose(quadrature_weights(points.numpy()), interval_weights(points).sum(-2), atol=1e-12)
