"""Gradients that are not those of f are found where they are few, or differentiated, and nobody else's are."""

import re
import warnings

import pytest
import torch
from captum.attr import GradientShap, IntegratedGradients
from torch import nn

from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaLayerIntegratedGradients
from tests.attr.conftest import CountingModel
from tests.attr.unexplained import BACKGROUND, WEIGHTS, Behind, X, beside_a_plain_output, detached, straight_through

WARNED = "do not explain how forward_func changes"
ZEROS = torch.zeros(3, 6)


def with_graph(method, **options):
    x = X.clone().requires_grad_()
    return MetaIntegratedGradients(detached).attribute(x, method=method, create_graph=True, **options)


CALLS = {
    **{f"{n} steps": lambda n=n: MetaIntegratedGradients(detached).attribute(X, n_steps=n) for n in (1, 2, 5, 7)},
    "tolerance": lambda: MetaIntegratedGradients(detached).attribute(X, n_steps=5, tolerance=1e-3),
    "outputs": lambda: MetaIntegratedGradients(beside_a_plain_output).attribute(X, outputs=[0, 1], n_steps=4)[:, 0],
    "layer": lambda: MetaLayerIntegratedGradients(model := Behind(detached), model.layer).attribute(X, n_steps=4),
    "graph": lambda: with_graph("gausslegendre"),
    "graph, five": lambda: with_graph("riemann_middle", n_steps=5),
    "draws": lambda: MetaGradientShap(detached).attribute(X, ZEROS),
    "draws, graph": lambda: MetaGradientShap(detached).attribute(X, ZEROS, create_graph=True),
    "draws of outputs": lambda: MetaGradientShap(beside_a_plain_output).attribute(X, ZEROS, outputs="all")[:, 0],
}


@pytest.mark.parametrize("call", CALLS)
def test_they_are_not_completed(call):
    with pytest.warns(UserWarning, match=f"rows 0, 1, 2, 3 {WARNED}"):
        values = CALLS[call]()
    torch.testing.assert_close(values, X * WEIGHTS, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("options", [{}, {"tolerance": 1e-3}, {"create_graph": True}])
@pytest.mark.parametrize("draws", [1, 2, 3, 4])
def test_of_few_draws_nothing_is_completed_that_all_of_them_miss(draws, options):
    values = MetaGradientShap(detached).attribute(X, ZEROS, n_samples=draws, **options)
    torch.testing.assert_close(values, X * WEIGHTS, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("n_steps", [8, 12])
def test_with_background_rows(n_steps):
    with pytest.warns(UserWarning, match=WARNED):
        values = MetaIntegratedGradients(detached).attribute(X, background=BACKGROUND, n_steps=n_steps)
    torch.testing.assert_close(values, (X - BACKGROUND.mean(0)) * WEIGHTS, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("n_steps", [1, 5])
def test_straight_through_steps(n_steps):
    with pytest.warns(UserWarning, match=WARNED):
        values = MetaIntegratedGradients(straight_through).attribute(X[:1], n_steps=n_steps)
    torch.testing.assert_close(values, IntegratedGradients(straight_through).attribute(X[:1], n_steps=n_steps))


def test_a_graph_still_trains_the_model():
    weights = WEIGHTS.clone().requires_grad_()
    values = MetaGradientShap(lambda x: x @ weights + 3 * x.detach().sum(1)).attribute(
        X, ZEROS, n_samples=2, create_graph=True
    )
    values.sum().backward()
    torch.testing.assert_close(weights.grad, X.sum(0))


@pytest.mark.parametrize("sharpness", [1.0, 30.0, 200.0])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Hardtanh])
def test_gradients_of_other_models_are_believed(activation, sharpness):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 3), nn.Softmax(1))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.mul_(sharpness**0.5)
    x = torch.randn(24, 6, generator=torch.Generator().manual_seed(1))
    integrated, draws = MetaIntegratedGradients(net), MetaGradientShap(net)
    for n_steps in (1, 2, 5):
        believed_where_there_are_any(integrated, x, target=0, n_steps=n_steps)
        believed_where_there_are_any(draws, x, ZEROS, target=0, n_samples=min(4, n_steps))
    believed_where_there_are_any(integrated, x, target=0, n_steps=3, create_graph=True)
    believed_where_there_are_any(draws, x, ZEROS, target=0, n_samples=1, create_graph=True)


def believed_where_there_are_any(method, *args, **kwargs):
    """Only rows all of whose gradients vanish, and which therefore get zeros as from Captum, are warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = method.attribute(*args, **kwargs)
    rows = [int(row) for one in caught for row in re.findall(r"\d+", str(one.message).split(" do not ")[0])]
    assert not values[rows].any()


def test_a_row_in_doubt_costs_five_evaluations_four_where_these_are_not_enough_and_nine_for_a_jump_in_vain():
    model = CountingModel()
    x = torch.ones(4, 6)
    attr = MetaIntegratedGradients(lambda x: model(x[:, :6])[:, 0] * 0 + x.detach().sum(1))
    with pytest.warns(UserWarning, match=WARNED):
        attr.attribute(x, n_steps=2)
    looked_at = 4 * (5 + 4 + 9)
    assert model.rows == 4 * (2 + 3) + 5 + looked_at + 4 * 2


def test_captums_draws_have_the_same_mean():
    torch.manual_seed(0)
    theirs = GradientShap(detached).attribute(X, ZEROS, n_samples=3)
    torch.testing.assert_close(MetaGradientShap(detached).attribute(X, ZEROS, n_samples=3), theirs)


def test_the_network_is_not_asked_where_the_quadrature_misses_nothing(monkeypatch):
    method = MetaIntegratedGradients(lambda x: x.pow(3).sum(1))
    asked = []
    monkeypatch.setattr(method, "_attributions", lambda evidence, plan: asked.append(len(evidence.total)))
    assert torch.allclose(method.attribute(X, n_steps=8), X**3, atol=1e-6) and not asked
