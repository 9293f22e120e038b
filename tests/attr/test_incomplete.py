"""Rows whose gap nobody can share out get Captum's own answer, and a warning: no swap is wrong in silence."""

import warnings

import pytest
import torch
from captum.attr import IntegratedGradients, InternalInfluence, LayerIntegratedGradients
from torch import nn

from captum_meta.attr import (
    MetaGradientShap,
    MetaIntegratedGradients,
    MetaInternalInfluence,
    MetaKernelShap,
    MetaLayerConductance,
    MetaLayerIntegratedGradients,
)
from tests.attr.unexplained import BACKGROUND, WEIGHTS, Behind, X, beside_a_plain_output, detached, straight_through


def over_its_length(x):
    return x @ WEIGHTS / x.norm(dim=1)


def logarithm(x):
    return x.log().sum(1)


@pytest.mark.parametrize("steps", [None, 10, 32, 50])
@pytest.mark.parametrize("function", [straight_through, detached])
def test_gradients_that_are_not_those_of_f(function, steps):
    model = Behind(function)
    expected = IntegratedGradients(model).attribute(X, n_steps=50)
    for method in (MetaIntegratedGradients(model), MetaLayerIntegratedGradients(model, model.layer)):
        with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
            values, delta = method.attribute(X, n_steps=steps, return_convergence_delta=True)
        torch.testing.assert_close(values, expected, rtol=1e-3, atol=1e-4)
        change = model(X) - model(torch.zeros_like(X))
        torch.testing.assert_close(delta, values.sum(1) - change, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("given", [{}, {"n_steps": 6}, {"n_steps": 20}, {"create_graph": True}], ids=str)
def test_a_small_detached_part_of_a_smooth_model_is_found(given):
    torch.manual_seed(0)
    net, scale = (nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 1)) for _ in range(2))

    def model(x):
        return (net(x) * (1 + 0.3 * scale(x).detach()))[:, 0]

    right = IntegratedGradients(model).attribute(X, n_steps=500)
    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        values = MetaIntegratedGradients(model).attribute(X, **given)
    assert ((values - right).square().sum() / right.square().sum()).item() < 1e-6


@pytest.mark.parametrize("steps", [None, 10, 50])
@pytest.mark.parametrize("function", [over_its_length, logarithm])
def test_f_that_is_not_finite_at_the_baseline(function, steps):
    model = Behind(function)
    pairs = [
        (MetaIntegratedGradients(model), IntegratedGradients(model)),
        (MetaLayerIntegratedGradients(model, model.layer), LayerIntegratedGradients(model, model.layer)),
        (MetaInternalInfluence(model, model.layer), InternalInfluence(model, model.layer)),
    ]
    for method, captums in pairs:
        with pytest.warns(UserWarning, match=r"not finite at the inputs or baselines of the rows 0, 1, 2, 3\."):
            values = method.attribute(X, n_steps=steps)
        torch.testing.assert_close(values, captums.attribute(X, n_steps=steps or 50), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("function", [over_its_length, logarithm])
def test_draws_and_conductance_stay_finite(function):
    model = Behind(function)
    calls = (
        lambda: MetaGradientShap(model).attribute(X, torch.zeros(3, 6)),
        lambda: MetaLayerConductance(model, model.layer).attribute(X, n_steps=10),
    )
    for call in calls:
        with pytest.warns(UserWarning, match="not finite"):
            assert call().isfinite().all()


@pytest.mark.parametrize("draws", [5, 20])
def test_draws_of_gradients_that_are_not_those_of_f(draws):
    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        values = MetaGradientShap(detached).attribute(X, torch.zeros(3, 6), n_samples=draws)
    torch.testing.assert_close(values, X * WEIGHTS, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("steps", [None, 40])
def test_background_rows_of_gradients_that_are_not_those_of_f(steps):
    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        values, error = MetaIntegratedGradients(detached).attribute(
            X, background=BACKGROUND, n_steps=steps, return_error_estimate=True
        )
    torch.testing.assert_close(values, (X - BACKGROUND.mean(0)) * WEIGHTS, rtol=1e-3, atol=1e-3)
    assert error.isnan().all()


@pytest.mark.parametrize("steps", [2, 40])
def test_a_background_row_at_which_f_is_not_finite(steps):
    background = torch.cat([BACKGROUND, torch.zeros(1, 6)])
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.warns(UserWarning, match="not finite at the inputs or baselines of the rows 0, 1, 2, 3"):
            values = MetaIntegratedGradients(logarithm).attribute(
                X, background=background, n_steps=steps, return_error_estimate=True
            )[0]
    assert values.isfinite().all()
    with pytest.warns(UserWarning, match="not finite at the rows 0, 1, 2, 3, or at one of their background rows"):
        values, error = MetaKernelShap(logarithm).attribute(
            X, background=background, n_samples=100, return_error_estimate=True
        )
    assert values.isnan().all() and error.isnan().all()


@pytest.mark.parametrize("steps", [None, 10])
def test_conductance_of_gradients_that_are_not_those_of_f(steps):
    model = Behind(detached)
    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        values = MetaLayerConductance(model, model.layer).attribute(X, n_steps=steps)
    torch.testing.assert_close(values, X * WEIGHTS, rtol=1e-3, atol=1e-3)


def over_two_inputs(one, two):
    return one @ WEIGHTS[:3].to(one) + 3 * one.detach().sum(1) + two @ WEIGHTS[3:].to(two)


CALLS = {
    "outputs": lambda x: MetaIntegratedGradients(beside_a_plain_output).attribute(x, outputs="all")[:, 0],
    "outputs, ten": lambda x: MetaIntegratedGradients(beside_a_plain_output).attribute(x, outputs="all", n_steps=10)[:, 0],
    "tolerance": lambda x: MetaIntegratedGradients(beside_a_plain_output).attribute(x, target=0, tolerance=1e-3),
    "multipliers": lambda x: x * MetaIntegratedGradients(beside_a_plain_output, False).attribute(x, target=0),
    "two inputs": lambda x: torch.cat(MetaIntegratedGradients(over_two_inputs).attribute((x[:, :3], x[:, 3:])), dim=1),
    "draws of outputs": lambda x: MetaGradientShap(beside_a_plain_output).attribute(x, 0 * x, outputs="all")[:, 0],
    "draws, tolerance": lambda x: MetaGradientShap(beside_a_plain_output).attribute(x, 0 * x, target=0, tolerance=1e-3),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("call", CALLS)
def test_every_form_of_the_call_has_captums_values(call, dtype):
    x = X.to(dtype)
    with pytest.warns(UserWarning, match="rows 0, 1, 2, 3 do not explain how forward_func changes"):
        values = CALLS[call](x)
    torch.testing.assert_close(values, x * WEIGHTS.to(dtype), rtol=1e-5, atol=1e-5)


def test_only_the_rows_concerned():
    def model(x):
        return torch.where(x[:, 0] > 1, detached(x), x @ WEIGHTS)

    x = torch.cat([X, X])
    x[:, 0] = torch.tensor([2.0, 0.5]).repeat(4)
    with pytest.warns(UserWarning, match="do not explain"):
        together = MetaIntegratedGradients(model).attribute(x, torch.tensor([[1.5, 0, 0, 0, 0, 0]]), n_steps=10)
    alone = MetaIntegratedGradients(model).attribute(x[1:2], torch.tensor([[1.5, 0, 0, 0, 0, 0]]), n_steps=10)
    torch.testing.assert_close(together[1:2], alone)


def test_a_missing_row_stays_missing():
    x = X.clone()
    x[1, 2] = torch.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        values = MetaInternalInfluence(model := Behind(logarithm), model.layer).attribute(x, torch.ones(1, 6))
    assert values[1].isnan().any() and values[[0, 2, 3]].isfinite().all()


@pytest.mark.parametrize("steps", [None, 10])
def test_half_precision_is_not_warned_of(steps):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 1)).bfloat16()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        MetaIntegratedGradients(lambda x: 5 + net(x)[:, 0] / 50).attribute(X.bfloat16(), n_steps=steps)


@pytest.mark.parametrize("sharpness", [1.0, 30.0])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Hardtanh])
def test_other_models_are_not_warned_of(activation, sharpness):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 3))

    def model(x):
        return (sharpness * net(x)).softmax(1)[:, 0]

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for steps in (None, 10, 50):
            MetaIntegratedGradients(model).attribute(X, n_steps=steps)
        for draws in (5, 20):
            MetaGradientShap(model).attribute(X, torch.zeros(3, 6), n_samples=draws)


@pytest.mark.parametrize("steps", [None, 1, 3, 10])
def test_players_behind_steps_get_nothing_and_a_warning(steps):
    model = Behind(lambda x: (3 * x).round() @ WEIGHTS + x.sign().prod(1))
    for method in (MetaIntegratedGradients(model), MetaLayerIntegratedGradients(model, model.layer)):
        with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
            assert (method.attribute(X, -X, n_steps=steps) == 0).all()
    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        assert (MetaGradientShap(model).attribute(X, -X, n_samples=steps) == 0).all()


def with_gaps(x):
    return (x.nan_to_num(0.4) @ WEIGHTS).tanh()


@pytest.mark.parametrize("steps", [None, 1, 3, 10])
def test_a_missing_player_has_what_f_does_where_it_appears(steps):
    gaps = X.clone()
    gaps[:, 1], gaps[0, 2] = torch.nan, torch.nan
    start = torch.zeros(1, 6).index_fill(1, torch.tensor([1]), torch.nan)
    values = MetaIntegratedGradients(with_gaps).attribute(gaps, start, n_steps=steps)
    assert (values[:, 1] == 0).all(), "missing at both ends"
    appears = torch.zeros(1, 6).index_fill(1, torch.tensor([1, 2]), torch.nan)
    torch.testing.assert_close(values[0, 2], (with_gaps(appears) - with_gaps(start))[0], atol=1e-4, rtol=0)
    torch.testing.assert_close(values.sum(1), with_gaps(gaps) - with_gaps(start))
    drawn = MetaGradientShap(with_gaps).attribute(gaps, start)
    assert drawn.isfinite().sum() == 23 and drawn[0, 2].isnan() and (drawn[:, 1] == 0).all()


@pytest.mark.parametrize("steps", [None, 10])
def test_several_missing_players_are_warned_of(steps):
    with pytest.warns(UserWarning, match="Several players are missing .* rows 0, 1, 2, 3"):
        MetaIntegratedGradients(with_gaps).attribute(X, torch.full((1, 6), torch.nan), n_steps=steps)


def gated(x):
    """Two experts, of which one answers: f jumps where the gate changes its mind."""
    return torch.where(x[:, 0] > 0.4, x @ WEIGHTS.to(x), (x[:, 1:4] ** 2).sum(1))


def in_steps(x):
    along = x @ WEIGHTS.to(x)
    return along.floor() + along / 10


JUMPS = {
    "default": lambda f, x: MetaIntegratedGradients(f).attribute(x),
    "ten gradients": lambda f, x: MetaIntegratedGradients(f).attribute(x, n_steps=10),
    "graph": lambda f, x: MetaIntegratedGradients(f).attribute(x, n_steps=12, create_graph=True),
    "outputs": lambda f, x: MetaIntegratedGradients(lambda z: f(z).unsqueeze(1)).attribute(x, outputs="all")[:, 0],
    "layer": lambda f, x: MetaLayerIntegratedGradients(model := Behind(f), model.layer).attribute(x),
    "layer, graph": lambda f, x: MetaLayerIntegratedGradients(model := Behind(f), model.layer).attribute(
        x, n_steps=12, create_graph=True
    ),
    "background": lambda f, x: MetaIntegratedGradients(f).attribute(x, background=torch.zeros(2, 6), n_steps=20),
    "conductance": lambda f, x: MetaLayerConductance(model := Behind(f), model.layer).attribute(x),
    "draws": lambda f, x: MetaGradientShap(f).attribute(x, torch.zeros(2, 6), n_samples=200),
}


@pytest.mark.parametrize("f", [gated, in_steps])
@pytest.mark.parametrize("call", JUMPS)
def test_what_f_changes_by_in_one_place_belongs_to_no_gradient(call, f):
    right = IntegratedGradients(f).attribute(X.double(), n_steps=2000, method="riemann_middle").to(X)
    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        values = JUMPS[call](f, X)
    assert ((values - right).norm(dim=1) <= 0.12 * right.norm(dim=1)).all()


@pytest.mark.parametrize("n_steps", [1, 2])
def test_one_or_two_gradients_beside_a_jump_give_captums_values(n_steps):
    def f(x):
        return x @ WEIGHTS + 4 * (x[:, 0] > 0.4)

    with pytest.warns(UserWarning, match="rows 0, 1, 2, 3 do not explain how forward_func changes"):
        values = MetaIntegratedGradients(f).attribute(X, n_steps=n_steps)
    torch.testing.assert_close(values, IntegratedGradients(f).attribute(X, n_steps=n_steps))


def gently_bent(x):
    return 8 + x @ WEIGHTS.to(x) + (x**2).sum(1) / 10


ROUNDED = {**JUMPS, "fifty gradients": lambda f, x: MetaIntegratedGradients(f).attribute(x, n_steps=50)}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("call", ROUNDED)
def test_an_output_of_half_precision_is_rounded_and_does_not_jump(call, dtype):
    x = 2 * torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    right = IntegratedGradients(gently_bent).attribute(x.double(), n_steps=50).to(x)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Gradients of the rows")
        values = ROUNDED[call](lambda x: gently_bent(x).to(dtype), x)
    assert ((values - right).norm(dim=1) <= 0.02 * right.norm(dim=1)).all()


def test_a_path_that_is_steep_and_smooth_is_completed():
    def steep(x):
        return (30 * (x @ WEIGHTS - 1)).sigmoid()

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        values = MetaIntegratedGradients(steep).attribute(X)
    torch.testing.assert_close(values.sum(1), steep(X) - steep(torch.zeros(1, 6)))
