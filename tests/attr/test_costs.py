"""What an explanation costs, in evaluations of the model, and what it is worth at full budget."""

import warnings

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor

from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaKernelShap, MetaShapleyValueSampling
from captum_meta.estimators import all_coalitions, shapley_values
from tests.attr.conftest import CountingModel, probe, untrained


def exact(model: torch.nn.Module, x: Tensor, baseline: Tensor, target: int) -> Tensor:
    members = all_coalitions(x.shape[1])
    rows = [model(torch.where(members, row, start))[:, target] for row, start in zip(x, baseline, strict=True)]
    return shapley_values(torch.stack(rows)).detach()


@pytest.mark.parametrize(("n_samples", "rows"), [(None, 3 + 12), (0, 3), (7, 3 + 7), (40, 3 + 40), (1000, 3 + 62)])
def test_shapley_costs_three_gradients_and_the_coalitions(n_samples: int | None, rows: int) -> None:
    model = CountingModel()
    MetaKernelShap(model, learner=untrained("shapley")).attribute(torch.randn(5, 6), target=1, n_samples=n_samples)
    assert model.rows == 5 * rows + probe(5)


def test_permutations_cost_as_many_coalitions_as_players() -> None:
    model = CountingModel()
    attr = MetaShapleyValueSampling(model, learner=untrained("shapley"))
    attr.attribute(torch.randn(5, 6), target=1, n_samples=4)
    assert model.rows == 5 * (3 + 24) + probe(5)


@pytest.mark.parametrize(
    ("n_steps", "method", "others"), [(4, "gausslegendre", 3), (1, "gausslegendre", 2), (4, "riemann_left", 2)]
)
def test_integrated_gradients_cost_their_steps_and_three_evaluations(n_steps: int, method: str, others: int) -> None:
    model = CountingModel()
    attr = MetaIntegratedGradients(model, learner=untrained("path"))
    attr.attribute(torch.randn(5, 6) / 10, target=1, n_steps=n_steps, method=method)
    assert model.rows == 5 * (n_steps + others) + probe(5)
    model.rows = 0
    attr.attribute(torch.randn(5, 6), target=1, n_steps=n_steps, method=method)
    assert model.rows <= 5 * (n_steps + others + 7) + probe(5)  # seven where they miss some of the change of f


def test_gradient_shap_costs_its_draws() -> None:
    model = CountingModel()
    x, baselines, attr = torch.randn(5, 6), torch.randn(3, 6), MetaGradientShap(model)
    attr.attribute(x, baselines, target=1)
    assert model.rows == 5 * 5 + 5 + 3  # the gradients of five draws, f of each row and each baseline
    for many in (x[:1], x):  # of more baselines than draws only what is drawn is evaluated
        model.rows = 0
        attr.attribute(many, torch.randn(40, 6), 6, target=1)
        assert model.rows == len(many) * (6 + 1 + 6)


def test_full_budget_is_exact() -> None:
    model, x, baseline = CountingModel().double(), torch.randn(4, 6).double(), torch.randn(4, 6).double()
    attr = MetaKernelShap(model, learner=untrained("shapley"))
    values = attr.attribute(x, baseline, target=2, n_samples=62)
    assert torch.allclose(values, exact(model, x, baseline, 2), atol=1e-12)


@pytest.mark.parametrize("size", [2, 3, 5])
def test_error_falls_to_nothing_with_the_budget(size: int) -> None:
    """Unanimity games: the product of ``size`` of eight players, each of which is worth 1 / size."""
    attr = MetaKernelShap(lambda x: x[:, :size].prod(1), learner=untrained("shapley"))
    x = torch.ones(3, 8, dtype=torch.float64)
    expected = torch.zeros(8, dtype=torch.float64)
    expected[:size] = 1 / size
    errors = [(attr.attribute(x, n_samples=n) - expected).square().sum().item() for n in (16, 64, 160, 254)]
    assert errors[-1] < 1e-20
    assert errors[2] <= errors[0] + 1e-12


def slope(model: torch.nn.Module, x: Tensor) -> Tensor:
    x = x.requires_grad_()
    return torch.autograd.grad(model(x)[:, 0].sum(), x)[0]


def test_long_paths_agree_with_captum() -> None:
    model, x = CountingModel(), torch.randn(4, 6)
    values = MetaIntegratedGradients(model, learner=untrained("path")).attribute(x, target=0, n_steps=12)
    assert torch.allclose(values, IntegratedGradients(model).attribute(x, target=0, n_steps=200), atol=1e-4)


@pytest.mark.parametrize("method", ["riemann_left", "riemann_right", "riemann_middle", "riemann_trapezoid"])
def test_captums_other_quadratures_are_accepted(method: str) -> None:
    model, x = CountingModel(), torch.randn(2, 6)
    attr = MetaIntegratedGradients(model, learner=untrained("path"))
    values = attr.attribute(x, target=0, n_steps=30, method=method)
    assert torch.allclose(values, attr.attribute(x, target=0, n_steps=12), atol=0.05)


def test_multipliers_are_average_gradients() -> None:
    model, x = CountingModel(), torch.randn(4, 6)
    x[:, 2] = 0
    attr = MetaIntegratedGradients(model, multiply_by_inputs=False, learner=untrained("path"))
    values = attr.attribute(x, target=0, n_steps=12)
    whole = MetaIntegratedGradients(model, learner=untrained("path")).attribute(x, target=0, n_steps=12)
    assert torch.allclose(values * x, whole, atol=1e-5)
    assert (values[:, 2].abs() > 1e-4).all()


def test_models_without_a_gradient_are_explained_by_coalitions_with_one_warning() -> None:
    def step(x: Tensor) -> Tensor:
        return (x[:, 0] > 0).float() + torch.as_tensor(x.numpy()[:, 1])

    attr = MetaKernelShap(step, learner=untrained("shapley"))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = attr.attribute(torch.ones(2, 40), n_samples=0)
    assert [str(w.message)[:60] for w in caught] == ["The model has no gradient with respect to up to 40 players o"]
    assert torch.allclose(values[:, :2], torch.ones(2, 2), atol=1e-5)


def test_all_outputs_at_once_cost_no_more_than_one() -> None:
    model, x = CountingModel(), torch.randn(2, 6)
    attr = MetaShapleyValueSampling(model, learner=untrained("shapley"))
    together = attr.attribute(x, n_samples=2)
    assert together.shape == (2, 3, 6)
    assert model.rows == 2 * (3 + 12) + probe(2)
    assert torch.allclose(together[:, 1], attr.attribute(x, target=1, n_samples=2), atol=1e-5)


def test_one_number_for_a_batch() -> None:
    model = CountingModel()
    attr = MetaShapleyValueSampling(lambda x: model(x).sum(), learner=untrained("shapley"))
    x = torch.randn(3, 6)
    values = attr.attribute(x, n_samples=20)
    assert values.shape == (1, 6)
    assert torch.allclose(values.sum(), model(x).sum() - model(0 * x).sum(), atol=1e-4)


def test_an_image_of_150528_pixels() -> None:
    x = torch.randn(1, 3, 224, 224)
    values = MetaKernelShap(lambda x: x.square().mean((1, 2, 3)), learner=untrained("shapley")).attribute(x)
    assert values.shape == x.shape
    assert torch.allclose(values.sum(), x.square().mean(), atol=1e-3)
