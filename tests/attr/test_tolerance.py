"""Rows that stop spending when their error estimate is met."""

import pytest
import torch

from captum_meta.attr import MetaKernelShap, MetaShapleyValueSampling
from tests.attr.conftest import CountingModel, probe, untrained


class HalfAdditive(torch.nn.Module):
    """Additive where the first feature is positive, with high-order interactions elsewhere; counts rows."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        return torch.where(x[:, 7] > 0, x.sum(1), (3 * x).sin().prod(1) * 20 + x.sum(1))


def rows() -> torch.Tensor:
    x = torch.rand(6, 8, generator=torch.Generator().manual_seed(0)) + 0.3
    x[3:, 7] *= -1
    return x


def test_easy_rows_stop_early_and_hard_ones_go_on() -> None:
    x, model = rows(), HalfAdditive()
    attr = MetaKernelShap(model, learner=untrained("shapley"))
    baselines = torch.zeros(1, 8)
    baselines[0, 7] = 1.0
    costs = []
    for row in x.split(1):
        model.rows = 0
        start = torch.where(torch.arange(8) == 7, row, baselines)
        attr.attribute(row, start, tolerance=1e-6)
        costs.append(model.rows - probe(1))
    assert costs[:3] == [3 + 16] * 3 and min(costs[3:]) >= 3 + 32
    model.rows = 0
    starts = torch.where(torch.arange(8) == 7, x, baselines)
    together, bounds = attr.attribute(x, starts, tolerance=1e-6, return_error_estimate=True)
    assert model.rows == sum(costs) + probe(6)
    assert (bounds <= 1e-6).all()
    exact = attr.attribute(x, starts, n_samples=254)
    assert ((together - exact).square().sum(1) <= 1e-6 * exact.square().sum(1)).all()
    alone = torch.cat(
        [attr.attribute(row, start[None], tolerance=1e-6) for row, start in zip(x.split(1), starts, strict=True)]
    )
    assert torch.allclose(together, alone, atol=1e-5)


def test_the_budget_caps_what_a_tolerance_may_spend() -> None:
    model = CountingModel()
    attr = MetaKernelShap(model, learner=untrained("shapley"))
    attr.attribute(torch.randn(4, 6), target=1, n_samples=20, tolerance=1e-12)
    assert model.rows == 4 * (3 + 20) + probe(4)


def test_estimates_are_zero_when_all_is_known_and_unknown_when_nothing_is() -> None:
    model, x = CountingModel(), torch.randn(4, 6)
    attr = MetaKernelShap(model, learner=untrained("shapley"))
    assert (attr.attribute(x, target=1, n_samples=62, return_error_estimate=True)[1] == 0).all()
    for too_few in (0, 1, 2, 11):
        assert attr.attribute(x, target=1, n_samples=too_few, return_error_estimate=True)[1].isnan().all()
    values, bounds = attr.attribute(x, target=1, n_samples=30, return_error_estimate=True)
    assert torch.equal(values, attr.attribute(x, target=1, n_samples=30))
    assert bounds.shape == (4,) and (bounds > 0).all()


def test_an_image_of_150528_pixels_has_no_estimate_and_costs_no_square_of_it() -> None:
    attr = MetaKernelShap(lambda x: x.square().mean((1, 2, 3)), learner=untrained("shapley"))
    values, bounds = attr.attribute(torch.ones(1, 3, 224, 224), n_samples=0, return_error_estimate=True)
    assert values.shape == (1, 3, 224, 224) and bounds.isnan().all()


def test_estimates_do_not_depend_on_the_outputs_scale() -> None:
    model, x = CountingModel(), torch.randn(4, 6)
    one = MetaKernelShap(model, learner=untrained("shapley"))
    hundred = MetaKernelShap(lambda rows: 100 * model(rows), learner=untrained("shapley"))
    first = one.attribute(x, target=1, n_samples=30, return_error_estimate=True)[1]
    second = hundred.attribute(x, target=1, n_samples=30, return_error_estimate=True)[1]
    assert torch.allclose(first, second, rtol=1e-2)


def test_all_outputs_of_a_row_must_meet_the_tolerance() -> None:
    attr = MetaShapleyValueSampling(CountingModel(), learner=untrained("shapley"))
    values, bounds = attr.attribute(torch.randn(4, 6), tolerance=1e-3, return_error_estimate=True)
    assert bounds.shape == values.shape[:2]
    assert (bounds <= 1e-3).all()


@pytest.mark.parametrize("tolerance", [0.0, -1.0, float("nan")])
def test_a_tolerance_must_be_positive(tolerance: float) -> None:
    with pytest.raises(ValueError, match="tolerance must be positive"):
        MetaKernelShap(CountingModel(), learner=untrained("shapley")).attribute(
            torch.randn(2, 6), target=1, tolerance=tolerance
        )


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_a_row_that_is_its_baseline_is_certain_and_spends_no_more_than_the_border(front_end) -> None:
    model = CountingModel()
    method, still = front_end(model), torch.zeros(1, 6)
    for which in ({"target": 1}, {"outputs": "all"}):
        model.rows = 0
        values, bounds = method.attribute(still, **which, tolerance=1e-6, return_error_estimate=True)
        assert not values.any() and not bounds.any() and model.rows <= 3 * 3 + 2 * 6 + probe(1)
    x = torch.cat([torch.randn(2, 6), still])
    _, bounds = method.attribute(x, target=1, return_error_estimate=True)
    assert bounds.flatten()[2] == 0 and (bounds.flatten()[:2] > 0).all()
    double = front_end(CountingModel().double()).attribute(x.double(), target=1, return_error_estimate=True)[1].flatten()
    assert double[2] == 0 and (double[:2] > 0).all()


def test_a_row_that_is_its_baseline_is_certain_beside_rows_that_teach_each_other() -> None:
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    x[7] = 0
    method = MetaKernelShap(CountingModel(), memory=64)
    values, bounds = method.attribute(x, target=1, n_samples=12, return_error_estimate=True)
    assert not values[7].any() and bounds[7] == 0 and (bounds[:7] > 0).all() and (bounds[8:] > 0).all()


def test_warnings_in_rounds_point_at_the_call() -> None:
    x = torch.randn(2, 6)
    x[1] = torch.inf
    with pytest.warns(UserWarning, match="not finite") as told:
        MetaKernelShap(CountingModel()).attribute(x, target=1, tolerance=0.1)
    assert {warning.filename for warning in told} == {__file__}
