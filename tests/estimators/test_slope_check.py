"""A gradient is told from the slope of f by five values of f close to each other."""

import numpy as np
import pytest

from captum_meta.estimators import OFFSETS, is_no_derivative, leaves_doubt

AT = 0.4
PLACES = AT + np.array(OFFSETS)


def wrong(slope, f, size=1.0, precision=1e-7):
    return bool(is_no_derivative(np.array([slope]), f(PLACES)[None], np.array([size]), precision)[0])


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


def test_only_much_that_is_missed_leaves_doubt():
    sums, weights = np.array([[1.0, 3.0], [1.0, 3.0], [1.0, -1.0]]), np.full((3, 2), 0.5)
    assert leaves_doubt(sums, weights, np.array([2.4, 3.0, 0.5])).tolist() == [False, True, True]
