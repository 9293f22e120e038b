"""Integrated Gradients with background rows, and of several outputs at once."""

from typing import Any

import pytest
import torch
from captum.attr import GradientShap, IntegratedGradients
from torch import Tensor

from captum_meta._model import Counted
from captum_meta.attr import MetaIntegratedGradients
from captum_meta.functional import attribution_error
from tests.attr.conftest import untrained

M, K = 6, 8


def make(model: Any, **arguments: Any) -> MetaIntegratedGradients:
    return MetaIntegratedGradients(model, learner=untrained("path"), **arguments)


@pytest.fixture
def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(M, 16), torch.nn.GELU(), torch.nn.Linear(16, 3)).eval()


def mean_of_ig(net: Any, x: Tensor, background: Tensor, target: Any, **arguments: Any) -> Tensor:
    """The definition: Captum's Integrated Gradients from one row after the other."""
    method = IntegratedGradients(net, **arguments)
    return torch.stack([method.attribute(x, row.unsqueeze(0), target, n_steps=200) for row in background]).mean(0)


@pytest.mark.parametrize("multiply", [True, False])
@pytest.mark.parametrize(("n_steps", "most"), [(200, 1e-4), (50, 0.005), (12, 0.1)])
def test_is_the_mean_over_background_rows(net: Any, multiply: bool, n_steps: int, most: float) -> None:
    x, background, target = torch.randn(4, M), torch.randn(K, M), torch.tensor([0, 2, 1, 0])
    found = make(net, multiply_by_inputs=multiply).attribute(x, target=target, background=background, n_steps=n_steps)
    truth = mean_of_ig(net, x, background, target, multiply_by_inputs=multiply)
    assert isinstance(found, Tensor)
    assert float(attribution_error(found, truth)) < most


def test_is_closer_than_gradient_shap_of_captum(net: Any) -> None:
    x, background = torch.randn(4, M), torch.randn(40, M)
    truth = mean_of_ig(net, x, background, 1)
    theirs = GradientShap(net).attribute(x, background, n_samples=50, target=1)
    found = make(net).attribute(x, target=1, background=background)
    assert float(attribution_error(found, truth)) < 0.3 * float(attribution_error(theirs, truth))


@pytest.mark.parametrize("n_steps", [5, 50])
def test_sums_and_what_is_returned_beside(net: Any, n_steps: int) -> None:
    x, background = torch.randn(30, M), torch.randn(K, M)
    arguments = {"target": 1, "n_steps": n_steps, "return_convergence_delta": True, "return_error_estimate": True}
    values, delta, error = make(net).attribute(x, background=background, **arguments)
    assert torch.allclose(values.sum(1), net(x)[:, 1] - net(background)[:, 1].mean(), atol=1e-5)
    assert torch.allclose(delta, torch.zeros(30), atol=1e-5)
    truth = mean_of_ig(net, x, background, 1)
    actual = (values - truth).square().sum(1) / truth.square().sum(1)
    assert (error > actual).float().mean() >= 0.85


@pytest.mark.parametrize("multiply", [True, False])
def test_rows_stop_within_the_tolerance(net: Any, multiply: bool) -> None:
    x, background, spent = torch.randn(20, M), torch.randn(24, M), []
    truth = mean_of_ig(net, x, background, 1, multiply_by_inputs=multiply)
    for tolerance in (0.3, 0.03, 0.003):
        model = Counted(net)
        attr = make(model, multiply_by_inputs=multiply)
        values, error = attr.attribute(x, target=1, background=background, tolerance=tolerance, return_error_estimate=True)
        assert bool((error <= tolerance).all())
        actual = (values - truth).square().sum(1) / truth.square().sum(1)
        assert (actual <= tolerance).float().mean() >= 0.9
        if multiply:
            assert torch.allclose(values.sum(1), net(x)[:, 1] - net(background)[:, 1].mean(), atol=1e-5)
        spent.append(model.evaluations)
    assert spent[0] < 0.5 * spent[2] and spent[0] < spent[1] < spent[2] < 20 * 24 * 50 * 3


def test_a_row_in_rounds_is_as_alone_and_keeps_to_its_budget(net: Any) -> None:
    x, background = torch.cat([0.01 * torch.randn(3, M), 5 * torch.randn(3, M)]), torch.randn(K, M)
    asked = {"target": 0, "background": background, "tolerance": 1e-4, "return_error_estimate": True}
    model = Counted(net)
    together = make(model).attribute(x, n_steps=100, **asked)
    assert model.evaluations <= 6 + K + 7 + 3 * 6 * 100
    for row in range(6):
        alone = make(net).attribute(x[row : row + 1], n_steps=100, **asked)
        for one, found in zip(alone, together, strict=True):
            assert torch.allclose(one[0], found[row], atol=1e-5, rtol=1e-3)
    assert len({round(float(error), 6) for error in together[1]}) > 3


def test_all_outputs_of_a_row_stop_together(net: Any) -> None:
    x, background = torch.randn(3, M), torch.randn(K, M)
    found = make(net).attribute(x, outputs="all", background=background, tolerance=0.01, return_error_estimate=True)
    assert found[0].shape == (3, 3, M) and bool((found[1] <= 0.01).all())
    truth = torch.stack([mean_of_ig(net, x, background, k) for k in range(3)], dim=1)
    assert float(attribution_error(found[0].flatten(1), truth.flatten(1))) < 0.01


def test_rows_that_are_unknown_cost_no_further_rounds(net: Any) -> None:
    x, background = torch.randn(2, M), torch.randn(K, M)
    model = Counted(lambda rows: net(rows) * torch.where(rows[:, :1] > 50, torch.inf, 1.0))
    x[1, 0] = 100
    with pytest.warns(UserWarning, match="not finite"):
        _, error = make(model).attribute(
            x, target=0, background=background, tolerance=1e-30, n_steps=400, return_error_estimate=True
        )
    assert bool(error[1].isnan()) and bool(error[0].isfinite())
    assert 3 * 400 < model.evaluations <= 2 + K + 3 + 3 * (400 + 16)


def test_gradients_that_are_not_those_of_f_are_told_from_rounding(net: Any, recwarn: pytest.WarningsRecorder) -> None:
    """f changes by nothing but rounding between a row and its neighbour in the background."""
    background = torch.randn(K, M)
    x = background + 3e-7 * torch.randn(K, M)
    asked: dict[str, Any] = {"target": 0, "background": background, "n_steps": 12 * K, "return_error_estimate": True}
    values, error = make(net).attribute(x, **asked)
    assert not len(recwarn) and bool(error.isfinite().all())
    assert torch.allclose(values, mean_of_ig(net, x, background, 0), atol=1e-4)
    detached = make(lambda rows: net(rows) + 3 * net(rows).detach())
    with pytest.warns(UserWarning, match="do not explain how"):
        _, error = detached.attribute(x, **asked)
    assert bool(error.isnan().all())


def test_one_row_is_a_baseline_and_two_inputs_are_drawn_together(net: Any) -> None:
    x, row = torch.randn(3, M), torch.randn(1, M)
    attr = make(net)
    assert torch.equal(attr.attribute(x, target=0, background=row), attr.attribute(x, row, target=0))
    parts, background = (x[:, :2], x[:, 2:]), torch.randn(K, M)
    two = make(lambda first, second: net(torch.cat([first, second], 1)))
    found = two.attribute(parts, target=0, background=(background[:, :2], background[:, 2:]), n_steps=12)
    whole = attr.attribute(x, target=0, background=background, n_steps=12)
    assert torch.allclose(torch.cat(found, 1), whole, atol=1e-5)


@pytest.mark.parametrize("n_steps", [5, 20])
def test_cost_and_rows_alone(net: Any, n_steps: int) -> None:
    x, background = torch.randn(3, M), torch.randn(K, M)
    model = Counted(net)
    together = make(model).attribute(x, target=0, background=background, n_steps=n_steps)
    gradients = n_steps if n_steps < 2 * K else n_steps // K * K
    assert model.evaluations == 3 + K + 4 + 3 * 3 * gradients  # a probe of four rows
    assert torch.allclose(
        together[1], make(net).attribute(x[1:2], target=0, background=background, n_steps=n_steps)[0], atol=1e-5
    )


@pytest.mark.parametrize(
    "given", [{}, {"background": torch.ones(3, M) * torch.arange(3.0).unsqueeze(1)}], ids=["zero", "rows"]
)
def test_outputs_are_those_of_one_target_at_a_time(net: Any, given: dict[str, Tensor]) -> None:
    x, attr = torch.randn(2, M), make(net)
    found, delta = attr.attribute(x, outputs=[2, 0], return_convergence_delta=True, **given)
    assert found.shape == (2, 2, M) and delta.shape == (2, 2)
    for place, target in enumerate((2, 0)):
        assert torch.allclose(found[:, place], attr.attribute(x, target=target, **given), atol=1e-6)
    assert torch.allclose(attr.attribute(x, outputs="all", **given)[:, [2, 0]], found)


def test_all_outputs_have_the_models_own_shape(net: Any) -> None:
    x = torch.randn(2, M)
    table = make(lambda x: net(x).unsqueeze(1) * torch.tensor([[1.0], [2.0]])).attribute(x, outputs="all")
    assert table.shape == (2, 2, 3, M)
    assert torch.allclose(table[:, 1], 2 * table[:, 0], atol=1e-5)
    assert make(lambda x: net(x)[:, 0]).attribute(x, outputs="all").shape == (2, 1, M)


def test_mistakes_are_named(net: Any) -> None:
    x, background, attr = torch.randn(2, M), torch.randn(K, M), make(net)
    with pytest.raises(AssertionError, match="baselines and background"):
        attr.attribute(x, 0, 0, background=background)
    with pytest.raises(AssertionError, match="target and outputs"):
        attr.attribute(x, target=0, outputs="all")
    with pytest.raises(ValueError, match="leave out method="):
        attr.attribute(x, target=0, background=background, method="riemann_left")
    with pytest.raises(AssertionError, match="pass target="):
        attr.attribute(x, background=background)
