"""What gradients at some points of paths say of their integrals, derived again with loops."""

import numpy as np
import torch
from torch import Tensor

from captum_meta.estimators import PathIntervals, PathSample, further_points

RANDOM = np.random.default_rng(0)


def sample(effects: Tensor, points: np.ndarray, values: np.ndarray, ends: np.ndarray) -> PathSample:
    rows = np.repeat(np.arange(len(ends)), len(points) // len(ends))
    return PathSample.of(rows, points, torch.from_numpy(values), effects, ends)


def of_curves(curves: np.ndarray, counts: int) -> PathSample:
    """Polynomials ``(N, M, degree + 1)`` of the path's parameter, at random points."""
    n_rows = len(curves)
    points = np.sort(RANDOM.random((n_rows, counts)), axis=1)
    powers = points[:, :, None] ** np.arange(curves.shape[2])
    effects = np.einsum("ngd,nmd->ngm", powers, curves)
    whole = curves.sum(1) / (1 + np.arange(curves.shape[2]))
    values = (points[:, :, None] ** (1 + np.arange(curves.shape[2])) * whole[:, None]).sum(2)
    ends = np.stack([np.zeros(n_rows), whole.sum(1)], axis=1)
    return sample(torch.from_numpy(effects).flatten(0, 1), points.flatten(), values.flatten(), ends)


def test_straight_gradients_are_integrated_exactly() -> None:
    curves = RANDOM.standard_normal((3, 4, 2))
    intervals = PathIntervals(of_curves(curves, 6))
    right = (curves / (1 + np.arange(2))).sum(2)
    assert np.allclose(intervals.sample.added(intervals.weights).numpy(), right)
    assert (intervals.error < 1e-12).all()


def test_the_sum_is_the_change_of_f_and_a_player_cut_in_two_gets_the_same() -> None:
    whole = of_curves(RANDOM.standard_normal((2, 3, 6)) * 5, 5)
    answer = whole.added(PathIntervals(whole).weights)
    assert np.allclose(answer.sum(1).numpy(), whole.ends[:, 1], rtol=0.05)
    order = RANDOM.permutation(3).copy()
    mixed = PathSample.of(
        whole.rows, whole.points, torch.from_numpy(whole.values), whole.effects[:, torch.from_numpy(order)], whole.ends
    )
    assert np.allclose(mixed.added(PathIntervals(mixed).weights).numpy(), answer.numpy()[:, order])


def test_rows_are_told_apart_whatever_is_beside_them() -> None:
    together = of_curves(RANDOM.standard_normal((3, 4, 5)), 7)
    alone = together.of_rows(np.array([False, True, False]))
    both, one = PathIntervals(together), PathIntervals(alone)
    for name in ("error", "captum", "several"):
        assert np.allclose(getattr(both, name)[1], getattr(one, name))
    assert np.allclose(together.added(both.weights)[1].numpy(), alone.added(one.weights)[0].numpy())


def test_further_points_go_where_the_gradient_jumps() -> None:
    points = (np.arange(8) + 0.5) / 8
    effects = torch.from_numpy(np.where(points[:, None] > 0.6, [[3.0, -1.0]], [[1.0, 2.0]]))
    values = 3 * points - np.maximum(points - 0.6, 0)
    kinked = PathIntervals(sample(effects, points, values, np.array([[0.0, 2.6]])))
    rows, found = further_points(kinked, np.zeros(1), 12)
    assert len(rows) <= 4 and ((found > points[4]) & (found < points[5])).sum() >= 2
    assert len(further_points(kinked, np.array([1e9]), 50)[0]) == 0


def test_what_is_not_finite_is_lent_by_the_nearest_point() -> None:
    points, values = np.array([0.2, 0.5, 0.9]), np.array([0.4, np.nan, 1.8])
    effects = torch.tensor([[1.0, torch.nan], [torch.inf, torch.nan], [3.0, torch.nan]]).double()
    filled = sample(effects, points, values, np.array([[0.0, 2.0]]))
    assert filled.effects[:, 0].tolist() == [1.0, 1.0, 3.0] and filled.effects[:, 1].tolist() == [0.0, 0.0, 0.0]
    assert np.allclose(filled.values, [0.4, 1.0, 1.8])


def test_a_kink_before_the_first_point_is_seen_in_f_alone() -> None:
    """The gradients at all points are the same, so that no jump says how f bends; the row was taken for a straight one."""
    points = (np.arange(8) + 0.5) / 8
    effects = torch.from_numpy(np.tile([[3.0, -1.0]], (8, 1)))
    values = 2 * points + 1.5 * 0.01
    intervals = PathIntervals(sample(effects, points, values, np.array([[0.0, 2 + 1.5 * 0.01]])))
    missed = 1.5 * 0.01
    assert intervals.error[0] > missed**2
    _, further = further_points(intervals, 0.01 * intervals.error, 20)
    assert len(further) and (further < points[0]).all()
