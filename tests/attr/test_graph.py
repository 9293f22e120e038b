"""Attributions that carry gradients: as Captum's do to the inputs, and with ``create_graph`` to the model."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Attribution, IntegratedGradients, NeuronIntegratedGradients
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

import captum_meta.attr._drawn_paths
from captum_meta.attr import (
    MetaGradientShap,
    MetaIntegratedGradients,
    MetaInternalInfluence,
    MetaLayerConductance,
    MetaLayerGradientShap,
    MetaLayerIntegratedGradients,
    MetaNeuronConductance,
    MetaNeuronGradientShap,
    MetaNeuronIntegratedGradients,
)
from tests.attr.comparing import assert_same, snapshot
from tests.attr.front_ends import FRONT_ENDS, asked, make, over

CARRYING = ("IntegratedGradients", "NeuronIntegratedGradients", "NeuronConductance")


def network() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3), nn.Softmax(-1)).double()


@pytest.mark.parametrize(("method", "front_end"), FRONT_ENDS)
def test_what_requires_a_gradient(method: type[Attribution], front_end: type[Attribution]) -> None:
    for required in (False, True):
        x = torch.randn(2, 4, requires_grad=required)
        values = make(front_end, nn.Linear(4, 2)).attribute(**asked(front_end, x, target=0))
        assert values.requires_grad == (required and method.__name__ in CARRYING)
        if values.requires_grad:
            assert over(method, nn.Linear(4, 2)).attribute(**asked(method, x, target=0)).requires_grad


@pytest.mark.parametrize("n_steps", [None, 6])
@pytest.mark.parametrize(
    ("method", "front_end", "selected"),
    [
        (IntegratedGradients, MetaIntegratedGradients, {"target": 1}),
        (NeuronIntegratedGradients, MetaNeuronIntegratedGradients, {"neuron_selector": 2}),
    ],
)
def test_gradients_through_the_difference_are_those_of_captum(
    method: Any, front_end: Any, selected: dict[str, int], n_steps: int | None
) -> None:
    model = network()
    layers = () if method is IntegratedGradients else (model[1],)
    x, b = torch.randn(3, 4).double(), torch.randn(3, 4).double()
    x[0, 1] = b[0, 1]
    found = []
    for make_it, steps in ((method, 500), (front_end, n_steps)):
        ends, starts = x.clone().requires_grad_(), b.clone().requires_grad_()
        values = make_it(model, *layers).attribute(ends, baselines=starts, n_steps=steps, **selected)
        values.sum().backward()
        found.append((ends.grad, starts.grad))
    for theirs, ours in zip(*found, strict=True):
        assert theirs[0, 1] != 0
        assert (ours - theirs).abs().max() < 0.01 * theirs.abs().max()


def cases() -> dict[str, Callable[[nn.Sequential, Tensor], Tensor]]:
    b = torch.randn(5, 4).double()
    return {
        "integrated": lambda model, x: MetaIntegratedGradients(model).attribute(x, target=1, create_graph=True),
        "multipliers": lambda model, x: MetaIntegratedGradients(model, False).attribute(x, target=1, create_graph=True),
        "riemann": lambda model, x: MetaIntegratedGradients(model).attribute(
            x, b[:1], 1, n_steps=5, method="riemann_trapezoid", create_graph=True
        ),
        "drawn": lambda model, x: MetaGradientShap(model).attribute(x, b, 4, target=1, create_graph=True),
        "layer": lambda model, x: MetaLayerIntegratedGradients(model, model[1]).attribute(x, target=1, create_graph=True),
        "neuron": lambda model, x: MetaNeuronIntegratedGradients(model, model[1]).attribute(x, 2, create_graph=True),
        "influence": lambda model, x: MetaInternalInfluence(model, model[1]).attribute(x, b[:1], 1, create_graph=True),
        "conductance": lambda model, x: MetaLayerConductance(model, model[1]).attribute(x, b[:1], 1, create_graph=True),
        "conductance of inputs": lambda model, x: MetaLayerConductance(model, model[1]).attribute(
            x, b[:1], 1, n_steps=4, attribute_to_layer_input=True, create_graph=True
        ),
        "drawn layer": lambda model, x: MetaLayerGradientShap(model, model[1]).attribute(x, b, target=1, create_graph=True),
        "neuron conductance": lambda model, x: MetaNeuronConductance(model, model[1]).attribute(
            x, 2, b[:1], 1, create_graph=True
        ),
        "neuron multipliers": lambda model, x: MetaNeuronConductance(model, model[1], None, False).attribute(
            x, 2, b[:1], 1, n_steps=5, method="riemann_trapezoid", create_graph=True
        ),
        "drawn neuron": lambda model, x: MetaNeuronGradientShap(model, model[1]).attribute(x, 2, b, create_graph=True),
    }


@pytest.mark.parametrize("case", cases())
def test_a_loss_of_attributions_has_the_gradient_of_finite_differences(case: str) -> None:
    model, x, attribute = network(), torch.randn(3, 4).double(), cases()[case]
    target = torch.randn_like(attribute(model, x))
    weights = model[0].weight
    gradient = torch.autograd.grad((attribute(model, x) * target).sum() + attribute(model, x).abs().sum(), weights)[0]
    direction = torch.randn_like(weights)
    sides = []
    for step in (1e-6, -1e-6):
        with torch.no_grad():
            weights += step * direction
        values = attribute(model, x)
        sides.append((values * target).sum() + values.abs().sum())
        with torch.no_grad():
            weights -= step * direction
    numeric = (sides[0] - sides[1]) / 2e-6
    assert torch.isclose((gradient * direction).sum(), numeric, rtol=1e-4, atol=1e-8)


def test_values_with_a_graph_are_path_integrals_that_sum_to_the_change() -> None:
    model, x = network(), torch.randn(3, 4).double()
    values, delta = MetaIntegratedGradients(model).attribute(
        x, target=1, n_steps=20, create_graph=True, return_convergence_delta=True
    )
    assert torch.allclose(values, IntegratedGradients(model).attribute(x, target=1, n_steps=200), atol=1e-6)
    assert delta.abs().max() < 1e-12
    layer = MetaLayerIntegratedGradients(model, model[1])
    assert torch.allclose(
        layer.attribute(x, target=1, n_steps=20, create_graph=True), layer.attribute(x, target=1), atol=1e-4
    )


def test_missing_players_have_with_a_graph_what_they_have_without() -> None:
    """All that f changes by where they appear, shared evenly; the rest is the path integral of the others."""
    net, x = network(), torch.randn(3, 4).double()
    x[0, 1] = x[1, 1] = x[1, 2] = float("nan")

    def model(rows: Tensor) -> Tensor:
        return net(torch.where(rows.isnan(), 0.7, rows))

    attr, asked_for = MetaIntegratedGradients(model), {"target": 1, "n_steps": 20}
    with pytest.warns(UserWarning, match="Several players are missing .* rows 1"):
        values = attr.attribute(x, create_graph=True, **asked_for)
    appear = net(0.7 * x.isnan().double())[:, 1] - net(torch.zeros(4).double())[1]
    assert torch.allclose(values[x.isnan()], (appear / x.isnan().sum(1))[[0, 1, 1]], atol=1e-6)
    assert torch.allclose(values.sum(1), model(x)[:, 1] - model(0 * x.nan_to_num())[:, 1])
    with pytest.warns(UserWarning, match="Several players are missing"):
        assert torch.allclose(values, attr.attribute(x, **asked_for), atol=1e-6)
    values.square().sum().backward()
    assert all(bool(part.grad.isfinite().all()) for part in net.parameters())


def test_values_of_layers_with_a_graph_are_those_without() -> None:
    model, x, b = network(), torch.randn(3, 4).double(), torch.randn(1, 4).double()
    for front_end, arguments in (
        (MetaInternalInfluence, ()),
        (MetaLayerConductance, ()),
        (MetaNeuronConductance, (2,)),
    ):
        attr: Any = front_end(model, model[1])
        asked: dict[str, Any] = {"baselines": b, "target": 1}
        found = attr.attribute(x, *arguments, n_steps=60, create_graph=True, **asked)
        assert torch.allclose(found, attr.attribute(x, *arguments, n_steps=32, **asked), atol=2e-5, rtol=1e-3)
    layer = MetaLayerGradientShap(model, model[1])
    given: dict[str, Any] = {"baselines": torch.randn(6, 4).double(), "target": 1}
    assert torch.allclose(layer.attribute(x, create_graph=True, **given), layer.attribute(x, **given), atol=1e-7)


def test_the_delta_of_conductance_with_a_graph_is_its_own() -> None:
    model, x = network(), torch.randn(3, 4).double()
    values, delta = MetaLayerConductance(model, model[1]).attribute(
        x, target=1, n_steps=3, return_convergence_delta=True, create_graph=True
    )
    change = (model(x) - model(torch.zeros(1, 4).double()))[:, 1]
    assert torch.allclose(delta, values.sum(1) - change) and delta.abs().max() > 1e-6


@pytest.mark.parametrize("case", cases())
def test_the_gradient_of_the_inputs_is_that_of_finite_differences(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Draws are seeded by the row, which finite differences would change: here by its number."""
    monkeypatch.setattr(captum_meta.attr._drawn_paths, "row_keys", lambda parts: torch.arange(len(parts[0])))
    model = network()
    attribute = cases()[case]
    x = torch.randn(2, 4).double().requires_grad_()
    assert torch.autograd.gradcheck(lambda part: attribute(model, part), x, atol=1e-5)


@pytest.mark.parametrize("front_end", [MetaIntegratedGradients, MetaGradientShap])
def test_training_with_an_attribution_prior(front_end: Any) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 6, generator=generator)
    y, sides = (x[:, 0] > 0).long(), {}
    x[:, 1] = x[:, 0] + 0.1 * torch.randn(64, generator=generator)  # says as much, but is not to be used
    for weight in (0.0, 1.0):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), nn.Tanh(), nn.Linear(12, 2))
        optimizer = torch.optim.Adam(model.parameters(), 2e-2)
        for _ in range(60):
            base = {"baselines": torch.zeros(1, 6)}
            values = front_end(model).attribute(x, target=1, create_graph=True, **base)
            loss = cross_entropy(model(x), y) + weight * values[:, 1].abs().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        values = IntegratedGradients(model).attribute(x, target=1)
        sides[weight] = float(values[:, 1].abs().mean() / values.abs().sum(1).mean())
        assert (model(x).argmax(1) == y).float().mean() > 0.9
    assert sides[1.0] < 0.1 * sides[0.0]


@pytest.mark.parametrize("raises", [False, True])
def test_the_explained_model_is_left_as_it_was(raises: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), nn.Linear(8, 2)).train()
    x = torch.randn(4, 6)
    before = snapshot(model, x)
    if raises:
        with pytest.raises(AssertionError, match="pass target="):
            MetaIntegratedGradients(model).attribute(x, create_graph=True)
    else:
        MetaIntegratedGradients(model).attribute(x, target=0, create_graph=True)
        MetaLayerIntegratedGradients(model, model[1]).attribute(x, target=0, create_graph=True)
    assert_same(snapshot(model, x), before)


def test_what_cannot_be_had_together() -> None:
    with pytest.raises(ValueError, match="and create_graph=True were both passed"):
        MetaIntegratedGradients(network()).attribute(torch.zeros(1, 4).double(), target=0, tolerance=0.1, create_graph=True)


def test_conductance_of_a_neuron_carries_what_captums_does() -> None:
    model, x = network(), torch.randn(3, 4).double().requires_grad_()
    values = MetaNeuronConductance(model, model[1]).attribute(x, 2, target=0)
    gradient = torch.autograd.grad(values.sum(), x)[0]
    assert torch.allclose(gradient * x, values, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
@pytest.mark.parametrize(("method", "front_end"), [one for one in FRONT_ENDS if "Sh" not in one[0].__name__])
def test_values_with_a_graph_keep_their_digits_and_captums_dtypes_but_for_half_precision(
    method: type[Attribution], front_end: type[Attribution], dtype: torch.dtype
) -> None:
    model = network().to(dtype)
    fine = copy.deepcopy(model).double()
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    parts = (x[:, :2].double(), x[:, 2:])

    def answer(net: nn.Module, made: type[Attribution], **given: Any) -> tuple[Tensor, ...]:
        def joined(one: Tensor, two: Tensor) -> Tensor:
            values: Tensor = net(torch.cat([one, two], dim=1).to(next(net.parameters())))
            return values

        found = over(made, joined).attribute(**asked(made, parts, target=1), **given)
        return tuple(found)

    ours = answer(model, front_end, create_graph=True)
    exact, theirs = answer(fine, front_end, create_graph=True), answer(model, method)
    assert [part.dtype for part in ours] == [torch.promote_types(part.dtype, torch.float32) for part in theirs]
    scale = torch.stack([part.norm() for part in exact]).norm()
    assert all((mine - right).norm() <= 8 * torch.finfo(dtype).eps * scale for mine, right in zip(ours, exact, strict=True))


def test_a_row_in_doubt_is_looked_at_beside_the_others_where_they_belong_together() -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1)).double()
    x = 3 * torch.randn(3, 4).double()
    with pytest.warns(UserWarning) as caught:
        values = MetaIntegratedGradients(model).attribute(x, target=0, n_steps=2, create_graph=True)
    assert any("rows of a batch act on each other" in str(warning.message) for warning in caught)
    assert values.shape == (3, 4) and values.isfinite().all()


def test_rows_that_act_on_each_other_get_captums_quadrature_and_a_warning_also_where_nobody_doubts_a_row() -> None:
    torch.manual_seed(0)
    model, x = network(), torch.randn(5, 4).double()

    def mixed(some: torch.Tensor) -> torch.Tensor:
        values: torch.Tensor = model(some)
        return values * (1 + 0.1 * values.mean(0))

    with pytest.warns(UserWarning, match="does not answer for each of the rows alone"):
        values = MetaIntegratedGradients(mixed).attribute(x, target=0, n_steps=8, create_graph=True)
    right = IntegratedGradients(mixed).attribute(x, target=0, n_steps=8, internal_batch_size=len(x))
    torch.testing.assert_close(values.detach(), right, rtol=1e-6, atol=1e-8)
