import numpy as np
import pytest
import torch

from captum_meta.estimators import gauss_legendre, interval_weights


@pytest.mark.parametrize("n", [1, 3, 8])
def test_gauss_legendre_integrates_polynomials_of_degree_2n_minus_1(n: int) -> None:
    nodes, weights = gauss_legendre(n)
    for degree in range(2 * n):
        assert torch.isclose((weights * nodes**degree).sum(), torch.tensor(1 / (degree + 1)).double())


def test_interval_weights_integrate_the_interpolating_polynomial() -> None:
    points = torch.tensor([0.1, 0.4, 0.8])
    values = np.array([1.0, -2.0, 0.5])
    polynomial = np.polynomial.Polynomial.fit(points.numpy(), values, 2).convert().integ()
    edges = np.array([0.0, 0.1, 0.4, 0.8, 1.0])
    parts = interval_weights(points).numpy() @ values
    assert np.allclose(parts, np.diff(polynomial(edges)), atol=1e-6)


def test_no_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="n_steps >= 1"):
        gauss_legendre(0)
