"""Integrated Gradients whose gradients are spent in rounds: exact where that is known, never worse than Captum's 50."""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from captum.testing.helpers.basic_models import BasicModel_MultiLayer_TrueMultiInput
from torch import Tensor, nn

from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaLayerConductance, MetaLayerIntegratedGradients

X = 2 * torch.randn(12, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


class Counted(nn.Module):
    """A model that counts the rows that it differentiates, and the largest number of them at once."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.rows, self.most = model, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x) * x.requires_grad
        self.most = max(self.most, len(x))
        value: Tensor = self.model(x)
        return value


def network(activation: type[nn.Module], seed: int, *last: nn.Module, dtype: torch.dtype = torch.float64) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        hidden = [nn.Linear(8, 24), activation(), nn.Linear(24, 24), activation()]
        return nn.Sequential(*hidden, nn.Linear(24, 3), *last).to(dtype)


@lru_cache
def explained(seed: int, *last: type[nn.Module]) -> tuple[nn.Module, Tensor]:
    """A net, and its integrated gradients at 1,000 points, some hundred times as exact as those that are judged by them."""
    model = network(nn.ReLU, seed, *(kind(1) for kind in last))
    return model, IntegratedGradients(model).attribute(X, target=1, n_steps=1000, method="riemann_middle")


def error(values: Tensor, right: Tensor) -> Tensor:
    return (values - right).square().sum() / right.square().sum()


@pytest.mark.parametrize("last", [(), (nn.Softmax,)], ids=["logits", "probabilities"])
def test_the_default_is_as_exact_as_captums(last: tuple[type[nn.Module], ...]) -> None:
    ours, theirs, rows = [], [], 0
    for seed in range(8):
        net, right = explained(seed, *last)
        model = Counted(net)
        ours.append(error(MetaIntegratedGradients(model).attribute(X, target=1), right))
        rows += model.rows
        theirs.append(error(IntegratedGradients(model.model).attribute(X, target=1), right))
    assert torch.stack(ours).mean() <= 1.05 * torch.stack(theirs).mean()
    assert rows <= 36 * 8 * len(X)


@pytest.mark.parametrize("last", [(), (nn.Softmax(1),)], ids=["logits", "probabilities"])
def test_smooth_paths_take_few_gradients(last: tuple[nn.Module, ...]) -> None:
    model = Counted(network(nn.GELU, 0, *last))
    right = IntegratedGradients(model.model).attribute(X, target=1, n_steps=200)
    assert error(MetaIntegratedGradients(model).attribute(X, target=1), right) < 1e-6
    assert model.rows <= 11 * len(X)


def test_kinks_are_found() -> None:
    def kinked(x: Tensor) -> Tensor:
        return 3 * (x[:, 0] + x[:, 1] - 1.1).relu() - (x[:, 1] - 2 * x[:, 2] - 0.3).relu() + x[:, 3] - x[:, 4].abs()

    model, x = Counted(kinked), torch.tensor([[2.0, 1.0, -1.0, 5.0, -3.0, 7.0]]).double()
    first, second = 1 - 1.1 / 3, 1 - 0.3 / 3  # of the path, after the kinks
    right = torch.tensor([[6 * first, 3 * first - second, -2 * second, 5.0, -3.0, 0.0]]).double()
    values, estimate = MetaIntegratedGradients(model).attribute(x, return_error_estimate=True)
    assert error(values, right) <= min(1e-4, float(estimate)) and values[0, 5] == 0
    assert torch.allclose(values.sum(1), kinked(x) - kinked(torch.zeros_like(x)))


@pytest.mark.parametrize("given", [{}, {"n_steps": 12}, {"n_steps": 50}, {"n_steps": 12, "create_graph": True}], ids=str)
def test_what_f_is_rounded_by_is_not_shared_out(given: dict[str, Any]) -> None:
    plain, x = network(nn.Tanh, 0, dtype=torch.float32), X.float()
    shift = nn.Linear(3, 3)
    shift.weight.data, shift.bias.data = torch.eye(3), torch.full((3,), 1e6)
    right = MetaIntegratedGradients(plain).attribute(x, target=1)
    first: Any = next(iter(plain.children()))
    far = nn.Sequential(plain, shift)
    assert error(MetaIntegratedGradients(far).attribute(x, target=1, **given), right) < 1e-6
    if not given.get("create_graph"):
        conductance = MetaLayerConductance(plain, first).attribute(x, target=1, **given)
        assert error(MetaLayerConductance(far, first).attribute(x, target=1, **given), conductance) < 1e-6


@pytest.mark.parametrize("last", [lambda y: y + 1e6, lambda y: y.bfloat16()], ids=["far from 0", "half precision"])
@pytest.mark.parametrize("activation", [nn.Tanh, nn.ReLU])
def test_outputs_whose_rounding_hides_the_path_are_no_less_exact_than_captums(
    activation: type[nn.Module], last: Callable[[Tensor], Tensor]
) -> None:
    plain, x = network(activation, 0, dtype=torch.float32), X.float()
    right = IntegratedGradients(plain).attribute(x, target=1, n_steps=1000)
    theirs = error(IntegratedGradients(plain).attribute(x, target=1), right)
    ours = MetaIntegratedGradients(lambda x: last(plain(x))).attribute(x, target=1)
    assert error(ours, right) <= 1.05 * theirs + 1e-9


@pytest.mark.parametrize("n_steps", [20, 50, 100])
def test_a_quadrature_that_misses_nothing_is_the_answer(n_steps: int) -> None:
    x = torch.rand(4, 6, generator=torch.Generator().manual_seed(0))
    values = MetaIntegratedGradients(lambda x: (15 * x).sin().sum(1)).attribute(x, n_steps=n_steps)
    assert error(values, (15 * x).sin()) < 1e-9


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
def test_a_row_is_explained_alone_as_in_a_batch(activation: type[nn.Module], dtype: torch.dtype) -> None:
    attr, x = MetaIntegratedGradients(network(activation, 1, nn.Softmax(1), dtype=dtype)), X.to(dtype)
    together = attr.attribute(x, target=0)
    alone = torch.cat([attr.attribute(row.unsqueeze(0), target=0) for row in x])
    bound = 1e-5 if dtype == torch.float32 else 1e-12
    assert ((together - alone).norm(dim=1) <= bound * together.norm(dim=1)).all()


@pytest.mark.parametrize("n_steps", [None, 1, 5, 40])
@pytest.mark.parametrize("multiply", [True, False])
def test_the_delta_is_that_of_what_is_returned(multiply: bool, n_steps: int | None) -> None:
    model = network(nn.ReLU, 0)
    attr = MetaIntegratedGradients(model, multiply)
    values, delta = attr.attribute(X, 0.3, 1, n_steps=n_steps, return_convergence_delta=True)
    assert torch.allclose(delta, attr.compute_convergence_delta(values, 0.3, X, 1), atol=1e-7)
    assert (delta.abs() < 1e-9).all() if multiply else (delta.abs() > 1e-3).all()
    layer = MetaLayerIntegratedGradients(model, model[0], multiply_by_inputs=multiply)
    values, delta = layer.attribute(X, 0.3, 1, n_steps=n_steps, return_convergence_delta=True)
    assert torch.allclose(delta, layer.compute_convergence_delta(values, 0.3, X, 1), atol=1e-7)


def test_multipliers_are_average_gradients() -> None:
    x = X.clone()
    x[:, 2] = 0.3
    model = network(nn.ReLU, 0)
    values = MetaIntegratedGradients(model, False).attribute(x, 0.3, 1)
    whole = MetaIntegratedGradients(model).attribute(x, 0.3, 1)
    assert torch.allclose(values * (x - 0.3), whole, atol=1e-9)
    right = IntegratedGradients(model, False).attribute(x, 0.3, 1, n_steps=2000)
    assert torch.allclose(values[:, 2], right[:, 2], atol=5e-3) and (right[:, 2].abs() > 0.05).any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("n_steps", [None, 4])
def test_half_precision_is_answered_in_single(n_steps: int | None, dtype: torch.dtype) -> None:
    model = network(nn.ReLU, 0, dtype=dtype)
    for ours, theirs in (
        (MetaIntegratedGradients(model), IntegratedGradients(model)),
        (MetaLayerIntegratedGradients(model, model[0]), LayerIntegratedGradients(model, model[0])),
    ):
        values, delta = ours.attribute(X.to(dtype), target=1, n_steps=n_steps, return_convergence_delta=True)
        right, other = theirs.attribute(X.to(dtype), target=1, return_convergence_delta=True)
        assert values.dtype == right.dtype and delta.dtype == other.dtype and values.shape == right.shape


@pytest.mark.parametrize("n_steps", [None, 6])
@pytest.mark.parametrize("limit", [1, 5])
def test_internal_batch_size_is_a_limit(limit: int, n_steps: int | None) -> None:
    model = Counted(network(nn.ReLU, 0))
    values = MetaIntegratedGradients(model).attribute(X, target=1, n_steps=n_steps, internal_batch_size=limit)
    assert model.most <= limit
    free = MetaIntegratedGradients(model.model).attribute(X, target=1, n_steps=n_steps)
    assert torch.allclose(values, free, atol=1e-9)


def test_rows_stop_at_the_tolerance() -> None:
    costs, covered = [], []
    for tolerance in (1e-1, 1e-3, 1e-4):
        within = []
        for seed in range(4):
            net, right = explained(seed, nn.Softmax)
            model = Counted(net)
            values, estimates = MetaIntegratedGradients(model).attribute(
                X, target=1, tolerance=tolerance, return_error_estimate=True
            )
            claimed = estimates <= tolerance
            rows = (values - right).square().sum(1) / right.square().sum(1)
            within.append(rows[claimed] <= tolerance)
            costs.append(model.rows)
            covered.append(rows <= estimates)
        assert torch.cat(within).double().mean() >= 0.9 and len(torch.cat(within)) > 10
    assert torch.cat(covered).double().mean() >= 0.85
    first, second, third = (sum(costs[place : place + 4]) for place in (0, 4, 8))
    assert first < second < third <= 50 * 4 * len(X)


def test_a_limit_beside_a_tolerance_and_what_is_returned() -> None:
    model = Counted(network(nn.ReLU, 0))
    values, delta, estimates = MetaIntegratedGradients(model).attribute(
        X, target=1, n_steps=12, tolerance=1e-12, return_convergence_delta=True, return_error_estimate=True
    )
    assert model.rows <= 12 * len(X) and values.shape == X.shape and delta.shape == estimates.shape == (len(X),)
    assert (delta.abs() < 1e-9).all() and (estimates > 1e-12).all()
    for n_steps in (2, 20, 40):
        estimates = MetaIntegratedGradients(model.model).attribute(X, target=1, n_steps=n_steps, return_error_estimate=True)[
            1
        ]
        assert (estimates > 0).all()
    one = MetaIntegratedGradients(model.model).attribute(X, target=1, n_steps=1, return_error_estimate=True)[1]
    assert one.isnan().all()
    with pytest.raises(ValueError, match="riemann_left"):
        MetaIntegratedGradients(model.model).attribute(X, target=1, method="riemann_left", tolerance=0.1)


@pytest.mark.parametrize("n_steps", [None, 4])
def test_a_gradient_that_is_not_finite_was_not_measured(n_steps: int | None) -> None:
    def norm(x: Tensor) -> Tensor:
        return (x.square().sum(1).sqrt() - 1).tanh()

    x = X.abs()
    change = norm(x) - norm(torch.zeros_like(x))
    right = change.unsqueeze(1) * x.square() / x.square().sum(1, keepdim=True)
    values = MetaIntegratedGradients(norm).attribute(x, n_steps=n_steps)
    assert error(values, right) < 1e-5

    def broken(x: Tensor) -> Tensor:
        return norm(x) + (x[:, 3] - 1).abs().sqrt().sqrt() * 1e-9  # its gradient is infinite where x3 is 1

    x[:, 3] = 2.0  # which is halfway
    assert MetaIntegratedGradients(broken).attribute(x, n_steps=n_steps).isfinite().all()
    assert MetaIntegratedGradients(broken).attribute(x, n_steps=1).isfinite().all()


def test_a_missing_value_is_what_its_indicator_makes_of_it() -> None:
    def reads(x: Tensor) -> Tensor:
        return torch.where(x[:, 2].isnan(), 5.0, x[:, 2]) + x[:, 0] * x[:, 1]

    x = torch.tensor([[2.0, 3.0, torch.nan], [2.0, 3.0, 1.0]])
    values = MetaIntegratedGradients(reads).attribute(x)
    assert torch.allclose(values, torch.tensor([[3.0, 3.0, 5.0], [3.0, 3.0, 1.0]]), atol=1e-4)


def test_one_input_of_two_layers_gets_what_both_layers_get() -> None:
    """As in Captum's own test of several layers with a shared input."""
    model = BasicModel_MultiLayer_TrueMultiInput()
    inputs = tuple(X[:5, 2 * place : 2 * place + 3].float() for place in range(3))
    start = tuple(torch.zeros_like(part) for part in inputs)
    layers = MetaLayerIntegratedGradients(model, [model.m1, model.m234])
    first, others = layers.attribute(inputs, start, target=0, attribute_to_layer_input=True)
    whole = MetaIntegratedGradients(model).attribute(inputs, start, target=0)
    for found, right in zip((first + others[-1], *others[:-1]), whole, strict=True):
        assert torch.allclose(found, right, atol=1e-5)


def test_data_parallel_is_its_module() -> None:
    model = network(nn.ReLU, 0)
    parallel = nn.DataParallel(model)
    expected = MetaLayerIntegratedGradients(model, model[0]).attribute(X, target=1)
    for attr in (
        MetaLayerIntegratedGradients(parallel, model[0]),
        MetaLayerIntegratedGradients(parallel, parallel.module[0], device_ids=[0]),
    ):
        assert torch.equal(attr.attribute(X, target=1), expected)
    adapted = MetaLayerIntegratedGradients(parallel, model[0]).adapt(X, target=1).attribute(X, target=1, n_steps=3)
    assert adapted.shape == expected.shape


@pytest.mark.filterwarnings("ignore:forward_func does not answer")
@pytest.mark.parametrize("n_steps", [None, 7])
def test_rows_that_act_on_each_other_are_integrated_as_by_captum(n_steps: int | None) -> None:
    def centred(x: Tensor) -> Tensor:
        return ((x - x.mean(0)).tanh() * x.mean(0)).sum(1)

    ours = MetaIntegratedGradients(centred).attribute(X, n_steps=n_steps, return_convergence_delta=True)
    options = {"n_steps": n_steps or 50, "internal_batch_size": len(X), "return_convergence_delta": True}
    theirs = IntegratedGradients(centred).attribute(X, **options)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("multiply", [True, False])
def test_deltas_of_draws_are_those_of_captums_definition(multiply: bool) -> None:
    def straight(x: Tensor) -> Tensor:
        return x @ torch.arange(8.0).double()

    baselines = torch.full((1, 8), 0.5).double()
    attr = MetaGradientShap(straight, multiply)
    values, deltas = attr.attribute(X, baselines, return_convergence_delta=True)
    each = deltas.reshape(len(X), 5)
    right = attr.compute_convergence_delta(values, baselines.expand_as(X), X)
    assert torch.allclose(each, right.unsqueeze(1).expand_as(each), atol=1e-6)


def test_draws_are_made_until_the_tolerance_is_met() -> None:
    model, baselines = network(nn.Tanh, 0), 0.5 * X.flip(0)
    right = MetaGradientShap(model).attribute(X, baselines, 4000, target=1)
    options = {"target": 1, "return_convergence_delta": True, "return_error_estimate": True}
    made = []
    for tolerance in (0.3, 0.03, 0.003):
        values, deltas, estimates = MetaGradientShap(model).attribute(X, baselines, tolerance=tolerance, **options)
        claimed, errors = estimates <= tolerance, (values - right).square().sum(1) / right.square().sum(1)
        assert (errors[claimed] <= tolerance).double().mean() >= 0.9
        made.append(int(deltas.isfinite().sum()))
    assert 5 * len(X) <= made[0] < made[1] < made[2] <= 320 * len(X)
    _, deltas, estimates = MetaGradientShap(model).attribute(X, baselines, 7, tolerance=1e-9, **options)
    assert deltas.shape == (7 * len(X),) and deltas.isfinite().all() and (estimates > 1e-9).all()
    assert MetaGradientShap(model).attribute(X, baselines, 1, **options)[2].isnan().all()


def test_a_row_of_draws_does_not_depend_on_the_other_rows() -> None:
    attr, baselines = MetaGradientShap(network(nn.Tanh, 0)), 0.5 * X.flip(0)
    together = attr.attribute(X, baselines, target=1, tolerance=0.03)
    alone = torch.cat([attr.attribute(row.unsqueeze(0), baselines, target=1, tolerance=0.03) for row in X])
    assert torch.allclose(together, alone, atol=1e-9)


def test_a_draw_without_a_finite_gradient_is_left_out_player_by_player() -> None:
    def broken(x: Tensor) -> Tensor:
        return x.sum(1) + (x[:, 0] - 0.5).relu().sqrt()  # whose gradient is 0 times infinity below one half

    x = torch.ones(2, 3)
    values = MetaGradientShap(broken).attribute(x, torch.zeros(1, 3), 20)
    assert values.isfinite().all() and (values[:, 0] > values[:, 1]).all()
    assert torch.allclose(values.sum(1), broken(x)) and torch.allclose(values[:, 1:], torch.ones(2, 2), atol=0.5)


@pytest.mark.parametrize("n_steps", [None, 12, 50])
def test_rows_that_act_on_each_other_are_at_the_same_point_of_their_paths(n_steps: int | None) -> None:
    weights = torch.randn(8, 3, generator=torch.Generator().manual_seed(0)).double() / 4

    def coupled(x: Tensor) -> Tensor:
        hidden = (x @ weights).tanh()
        return (hidden - hidden.mean(0)).prod(1) + hidden[:, 0]

    right = IntegratedGradients(coupled).attribute(X, n_steps=200, internal_batch_size=len(X))
    with pytest.warns(UserWarning, match="does not answer for each of the rows alone"):
        values = MetaIntegratedGradients(coupled).attribute(X, n_steps=n_steps)
    assert error(values, right) < 1e-6
