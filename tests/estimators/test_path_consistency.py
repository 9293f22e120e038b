"""Gradients that are not those of f are told from those that are."""

from itertools import pairwise

import numpy
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_meta import estimators

POINTS = torch.linspace(0.04, 0.96, 12, dtype=torch.float64)


def inconsistent_gradients(*numbers):
    return estimators.inconsistent_gradients(*(part.double().numpy() for part in numbers))


def told(slope, f, points=POINTS):
    curve, total = f(points) - f(torch.zeros(())), f(torch.ones(())) - f(torch.zeros(()))
    return inconsistent_gradients(
        points.unsqueeze(0), slope(points).unsqueeze(0), curve.unsqueeze(0), total.double().reshape(1)
    )


def plainly(points, sums, heights):
    """The same, one interval after the other; ``heights`` are those of f at 0, at the points and at 1."""
    places, sides = [0.0, *points, 1.0], [sums[0], *sums, sums[-1]]
    jumps = [abs(b - a) for a, b in pairwise(sides)]
    changes = [b - a for a, b in pairwise(heights)]
    widths = [b - a for a, b in pairwise(places)]
    trapezia = [h * (a + b) / 2 for h, (a, b) in zip(widths, pairwise(sides), strict=True)]
    sizes = [max(abs(c), abs(t)) for c, t in zip(changes, trapezia, strict=True)]
    length, so_far = 0.0, [0.0]
    for j, (h, c, t, size) in enumerate(zip(widths, changes, trapezia, sizes, strict=True)):
        beyond = abs(c - t) - h * max(jumps[max(j - 1, 0) : j + 2]) / 2
        so_far.append(so_far[-1] + c - t)
        length += h if beyond > 0.25 * size and beyond > 0.1 * h * sum(sizes) else 0.0
    return length > 0.5 and max(so_far) - min(so_far) > 0.25 * sum(sizes)


@given(st.integers(0, 10_000), st.integers(8, 20), st.floats(0, 2))
@settings(max_examples=60, deadline=None)
def test_as_interval_by_interval(seed, count, wrong):
    generator = torch.Generator().manual_seed(seed)
    points = torch.rand(count, generator=generator, dtype=torch.float64).sort().values
    sums = torch.randn(count, generator=generator, dtype=torch.float64) * 0.3 + 1
    heights = torch.cat([torch.zeros(1), points * (1 + wrong), torch.full((1,), 1 + wrong)]).double()
    found = inconsistent_gradients(points[None], sums[None], heights[None, 1:-1], heights[None, -1])
    assert found.item() == plainly(points.tolist(), sums.tolist(), heights.tolist())


@pytest.mark.parametrize("power", [1, 2, 5, 12])
def test_gradients_of_f_are_believed(power):
    assert not told(lambda t: power * t ** (power - 1), lambda t: t**power)


@pytest.mark.parametrize("sharpness", [1, 10, 100, 1000])
def test_also_where_f_is_sharp(sharpness):
    def slope(t):
        return sharpness * torch.sigmoid(sharpness * (t - 0.4)) * (1 - torch.sigmoid(sharpness * (t - 0.4)))

    assert not told(slope, lambda t: torch.sigmoid(sharpness * (t - 0.4)))


@pytest.mark.parametrize("factor", [-1.0, 0.0, 0.5, 2.0])
def test_gradients_of_something_else_are_not(factor):
    assert told(lambda t: factor * torch.ones_like(t), lambda t: t)
    assert told(lambda t: factor * 2 * (t + 1), lambda t: (t + 1) ** 2)


def test_rounding_is_not_taken_for_it():
    heights = 100 + 0.1 * torch.cat([torch.zeros(1), POINTS.float(), torch.ones(1)])
    rounded = (heights * 50).round() / 50
    curve = (rounded - rounded[0]).double()
    assert not inconsistent_gradients(POINTS[None], torch.full((1, 12), 0.1), curve[None, 1:-1], curve[None, -1])


def test_few_points_say_nothing():
    assert not told(lambda t: -torch.ones_like(t), lambda t: t, POINTS[::2])


def test_a_constant_is_explained():
    assert not told(torch.zeros_like, torch.zeros_like)


@given(st.integers(0, 10_000), st.integers(8, 20), st.sampled_from([0.0, 0.003, 0.03]))
@settings(max_examples=40, deadline=None)
def test_a_small_part_that_is_no_gradient_is_found_on_smooth_paths(seed, count, part):
    generator = torch.Generator().manual_seed(seed)
    points = torch.from_numpy((numpy.polynomial.legendre.leggauss(count)[0] + 1) / 2)[None]
    shift, bend = torch.rand(2, generator=generator, dtype=torch.float64)
    f = torch.tanh(points + bend) - torch.tanh(bend)
    slope = 1 - torch.tanh(points + bend).square()
    hidden, total = part * ((1 + shift) * points + points**2), torch.tanh(1 + bend) - torch.tanh(bend) + part * (2 + shift)
    found = estimators.smoothly_inconsistent(*(one.numpy() for one in (points, slope, f + hidden, total.reshape(1))))
    assert found.item() == (part > 0)


@pytest.mark.parametrize("sharpness", [1, 10, 100, 1000])
def test_sharp_and_kinked_paths_are_believed(sharpness):
    for f in (lambda t: torch.sigmoid(sharpness * (t - 0.4)), lambda t: (sharpness * (t - 0.37)).relu(), torch.sqrt):
        t = POINTS.clone().requires_grad_()
        (slope,) = torch.autograd.grad(f(t).sum(), t)
        ends = f(torch.tensor([0.0, 1.0]).double())
        numbers = (POINTS[None], slope[None], (f(POINTS) - ends[0])[None], (ends[1] - ends[0])[None])
        assert not estimators.smoothly_inconsistent(*(one.numpy() for one in numbers))[0]
