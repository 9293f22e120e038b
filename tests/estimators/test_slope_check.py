"""A gradient is told from the slope of f by five values of f close to each other."""

import numpy as np
import pytest

from captum_meta.estimators import FAR, NEAR, is_no_derivative, missed_part

AT = 0.4
PLACES = AT + np.array([-FAR, -NEAR, 0.0, NEAR, FAR])


def wrong(slope, f, size=1.0, precision=1e-7):
    values = f(PLACES)[None]
    found, may_be = (
        bool(is_no_derivative(np.array([slope]), v, np.array([size]), precision)[0]) for v in (values, values[:, 1:4])
    )
    assert may_be or not found
    return found


@pytest.mark.parametrize("power", [1, 2, 5, 12])
@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0])
def test_other_slopes_than_those_of_a_smooth_f(power, factor):
    slope = power * AT ** (power - 1)
    assert not wrong(slope, lambda t: t**power, size=slope)
    assert wrong(factor * slope, lambda t: t**power, size=slope)


@pytest.mark.parametrize("kink", np.linspace(AT - 0.05, AT + 0.05, 41))
@pytest.mark.parametrize("side", [0.0, 1.0])
def test_a_kink_close_by_is_none_of_them(kink, side):
    slope = float(kink < AT) if abs(kink - AT) > 1e-9 else side
    assert not wrong(slope, lambda t: np.maximum(t - kink, 0), size=1 - kink)


@pytest.mark.parametrize("place", np.linspace(AT - 0.01, AT + 0.01, 21))
@pytest.mark.parametrize("sharpness", [1.0, 10.0, 100.0, 300.0])
def test_nor_is_a_step(place, sharpness):
    height = 1 / (1 + np.exp(-sharpness * (AT - place)))
    assert not wrong(sharpness * height * (1 - height), lambda t: 1 / (1 + np.exp(-sharpness * (t - place))))


def test_nor_is_rounding():
    def rounded(t):
        return (1000 + t).astype(np.float32).astype(np.float64)

    assert not wrong(1.0, rounded) and not wrong(0.0, rounded) and wrong(3.0, rounded)
    assert not wrong(1.0, lambda t: np.round(t * 40) / 40)


def test_f_that_is_not_finite_says_nothing():
    assert not wrong(1.0, lambda t: np.full_like(t, np.nan))
    assert not wrong(1.0, lambda t: np.where(t > AT, np.inf, t))


def test_what_is_missed_of_what_f_changes_by_along_the_path():
    sums, weights = np.array([[1.0, 3.0], [1.0, 3.0], [1.0, -1.0], [0.0, 0.0]]), np.full((4, 2), 0.5)
    missed = missed_part(sums, weights, np.array([2.4, 3.0, 0.5, 0.0]))
    np.testing.assert_allclose(missed, [1 / 6, 1 / 3, 0.5, 0.0])
