"""Path integrals of layers and of neurons: Captum's shapes, the definitions derived again, and errors beside Captum's."""

import copy
from typing import Any

import pytest
import torch
from captum.attr import (
    Attribution,
    InternalInfluence,
    LayerAttribution,
    LayerConductance,
    LayerGradientShap,
    LayerIntegratedGradients,
    NeuronAttribution,
    NeuronConductance,
    NeuronGradientShap,
    NeuronIntegratedGradients,
)
from captum.testing.attr.helpers.test_config import config
from torch import Tensor, nn

from captum_meta.attr import (
    MetaInternalInfluence,
    MetaLayerConductance,
    MetaLayerGradientShap,
    MetaNeuronConductance,
    MetaNeuronIntegratedGradients,
)
from tests.attr.comparing import module, structure
from tests.attr.explained_layers import KINDS, Explained, explained
from tests.attr.front_ends import PEERS, asked

OURS: dict[type[Attribution], Any] = {
    method: ours
    for method, ours in PEERS.items()
    if issubclass(method, (LayerAttribution, NeuronAttribution)) and method is not LayerIntegratedGradients
}
"""Layer Integrated Gradients has tests of its own."""
PATHS = [LayerConductance, InternalInfluence, NeuronIntegratedGradients, NeuronConductance]
ROUNDING = 1e-5


def error(found: Tensor, reference: Tensor) -> float:
    return float((found - reference).double().square().sum() / reference.double().square().sum())


def ask(method: type[Attribution], case: Explained) -> dict[str, Any]:
    neuron = {} if method in (LayerConductance, LayerGradientShap, InternalInfluence) else {"neuron_selector": case.neuron}
    target = {} if method in (NeuronIntegratedGradients, NeuronGradientShap) else {"target": case.target}
    return {"inputs": case.x, **neuron, **target}


def entries() -> list[Any]:
    return [
        pytest.param(method, entry, id=f"{method.__name__}-{entry['name']}")
        for entry in config
        for method in entry["algorithms"]
        if method in OURS and not entry.get("noise_tunnel")
    ]


@pytest.mark.parametrize(("method", "entry"), entries())
def test_captums_own_configurations(method: type[Attribution], entry: dict[str, Any]) -> None:
    model, arguments = copy.deepcopy(entry["model"]), entry["attribute_args"]
    layer = module(model, entry["layer"])
    theirs = method(model, layer).attribute(**arguments)  # type: ignore[call-arg]
    assert structure(OURS[method](model, layer).attribute(**arguments)) == structure(theirs)


@pytest.mark.parametrize("method", PATHS)
@pytest.mark.parametrize("kind", KINDS)
def test_ten_gradients_are_as_exact_as_eleven_of_captum(method: type[Attribution], kind: str) -> None:
    errors = torch.zeros(4)
    for seed in range(3):
        case = explained(kind, seed)
        theirs, ours = method(case.net, case.layer), OURS[method](case.net, case.layer)  # type: ignore[call-arg]
        arguments = ask(method, case)
        reference = theirs.attribute(**arguments, n_steps=1000, method="gausslegendre")
        answers = [ours.attribute(**arguments, n_steps=10), theirs.attribute(**arguments, n_steps=11)]
        answers += [ours.attribute(**arguments), theirs.attribute(**arguments)]
        errors += torch.tensor([error(found, reference) for found in answers])
    ten, eleven, default, captum = errors.tolist()
    print(f"{method.__name__} {kind}: 10 {ten:.2g}, Captum's 11 {eleven:.2g}; default {default:.2g}, Captum's {captum:.2g}")
    assert ten <= max(eleven, 1e-10)
    assert default <= max(captum * (1 + ROUNDING), 1e-10)  # both may take the same points


@pytest.mark.parametrize("kind", KINDS)
def test_ten_draws_of_a_layer_are_as_exact_as_eleven_of_captum(kind: str) -> None:
    case = explained(kind)
    baselines = torch.randn(5, *case.x.shape[1:], generator=torch.Generator().manual_seed(1))
    given: list[Tensor] = []
    handle = case.layer.register_forward_hook(lambda _, inputs, output: given.append(output.detach()))
    case.net(case.x), case.net(baselines)
    handle.remove()
    of_neuron, of_layer = 0.0, 0.0
    for start, activation in zip(baselines.split(1), given[1].split(1), strict=True):
        average = InternalInfluence(case.net, case.layer).attribute(case.x, start, case.target, n_steps=200)
        of_layer = of_layer + average * (given[0] - activation) / 5
        neuron = NeuronIntegratedGradients(case.net, case.layer)
        of_neuron = of_neuron + neuron.attribute(case.x, case.neuron, start, n_steps=200) / 5
    for method, reference in ((LayerGradientShap, of_layer), (NeuronGradientShap, of_neuron)):
        arguments = {**ask(method, case), "baselines": baselines}
        theirs, ours = method(case.net, case.layer), OURS[method](case.net, case.layer)
        found = [error(ours.attribute(**arguments, n_samples=10, seed=seed), reference) for seed in range(4)]
        beside = [error(theirs.attribute(**arguments, n_samples=11), reference) for _ in range(4)]
        assert sum(found) < sum(beside)


class Skips(nn.Module):
    """A layer that f passes by, and that runs twice."""

    def __init__(self, twice: bool) -> None:
        super().__init__()
        self.layer, self.out, self.twice = nn.Linear(4, 4), nn.Linear(4, 1), twice

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.layer(x).sin()
        if self.twice:
            hidden = self.layer(hidden).sin()
        return self.out(hidden).square() + x.prod(1, keepdim=True)

    def last(self, x: Tensor) -> Tensor:
        return self.layer(self.layer(x).sin()) if self.twice else self.layer(x)

    def of_last(self, hidden: Tensor, x: Tensor) -> Tensor:
        return self.out(hidden.sin()).square() + x.prod(1, keepdim=True)


@pytest.mark.parametrize("twice", [False, True])
def test_the_definitions_derived_again(twice: bool) -> None:
    model, x, b = Skips(twice).double(), torch.randn(3, 4).double(), torch.randn(1, 4).double()
    n, selected = 4000, 2
    alphas = ((torch.arange(n).double() + 0.5) / n).reshape(n, 1, 1)
    at = (b + alphas * (x - b)).flatten(0, 1).requires_grad_()
    hidden = model.last(at)
    leaf = hidden.detach().requires_grad_()
    slope = torch.autograd.grad(model.of_last(leaf, at.detach()).sum(), leaf)[0]
    rate = torch.autograd.functional.jvp(model.last, at.detach(), (x - b).repeat(n, 1))[1]
    own = torch.autograd.grad(hidden[:, selected].sum(), at)[0]
    influence, conductance = slope.reshape(n, 3, 4).mean(0), (slope * rate).reshape(n, 3, 4).mean(0)
    through = (slope[:, selected].unsqueeze(1) * own).reshape(n, 3, 4).mean(0) * (x - b)
    assert torch.allclose(MetaInternalInfluence(model, model.layer).attribute(x, b, 0), influence, atol=1e-5)
    assert torch.allclose(MetaLayerConductance(model, model.layer).attribute(x, b, 0), conductance, atol=1e-5)
    assert torch.allclose(MetaNeuronConductance(model, model.layer).attribute(x, selected, b, 0), through, atol=1e-5)


def test_deltas_are_those_of_what_is_returned() -> None:
    case = explained("probabilities")
    change = (case.net(case.x) - case.net(0 * case.x)).gather(1, case.target.unsqueeze(1)).squeeze(1)
    values, delta = MetaLayerConductance(case.net, case.layer).attribute(
        case.x, target=case.target, n_steps=3, return_convergence_delta=True
    )
    assert torch.allclose(delta, values.sum(1) - change, atol=1e-6)
    baselines = torch.zeros(1, 10)
    values, delta = MetaLayerGradientShap(case.net, case.layer).attribute(
        case.x, baselines, 4, target=case.target, return_convergence_delta=True
    )
    assert torch.allclose(delta.reshape(6, 4).mean(1), values.sum(1) - change, atol=1e-5)


@pytest.mark.parametrize("method", [NeuronIntegratedGradients, NeuronConductance])
def test_neurons_are_selected_as_in_captum(method: type[Attribution]) -> None:
    case = explained("recurrent")
    target = {"target": case.target} if method is NeuronConductance else {}
    for selector in ((slice(0, 3), 1), lambda values: values[:, 2, 4], (0, 0)):
        theirs = method(case.net, case.layer).attribute(  # type: ignore[call-arg]
            case.x, selector, n_steps=400, method="gausslegendre", **target
        )
        assert error(OURS[method](case.net, case.layer).attribute(case.x, selector, **target), theirs) < 1e-5


def test_a_selector_of_the_whole_batch() -> None:
    case = explained("recurrent")

    def of_batch(values: Tensor) -> Tensor:
        return values[:, 2, 4].sum()

    theirs = NeuronIntegratedGradients(case.net, case.layer).attribute(case.x, of_batch)
    with pytest.warns(UserWarning, match="does not answer for each of the rows alone"):
        ours = MetaNeuronIntegratedGradients(case.net, case.layer).attribute(case.x, of_batch)
    assert torch.allclose(ours, theirs, atol=1e-5)
    with pytest.raises(AssertionError, match="must select one number for each"):
        MetaNeuronConductance(case.net, case.layer).attribute(case.x, of_batch, target=0)


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("method", OURS)
def test_layers_are_modules(method: type[Attribution]) -> None:
    with pytest.raises(TypeError, match="pass the module itself"):
        OURS[method](explained("recurrent").net, "first")


@pytest.mark.parametrize("method", PATHS)
def test_what_a_layer_is_given(method: type[Attribution]) -> None:
    case = explained("convolutional")
    arguments = ask(method, case) | ({"neuron_selector": (0, 3, 4)} if "neuron_selector" in ask(method, case) else {})
    name = f"attribute_to_{'neuron' if 'neuron_selector' in arguments else 'layer'}_input"
    theirs = method(case.net, case.layer).attribute(  # type: ignore[call-arg]
        **arguments, **{name: True}, n_steps=1000, method="gausslegendre"
    )
    found = OURS[method](case.net, case.layer).attribute(**arguments, **{name: True})
    assert found.shape == theirs.shape
    assert error(found, theirs) < 1e-3


class Past(nn.Module):
    """What a layer is given goes past it, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return (x + self.layer(x)).sum(1)


class Twice(nn.Module):
    """A layer that is given the same tensor twice."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Bilinear(4, 4, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x, x)[:, 0]


@pytest.mark.parametrize("front_end", [MetaLayerConductance, MetaInternalInfluence, MetaLayerGradientShap])
@pytest.mark.parametrize("model", [Past(), Twice()], ids=lambda model: type(model).__name__)
def test_what_a_layer_is_given_counts_as_far_as_it_passes_through_the_layer(model: nn.Module, front_end: Any) -> None:
    x = torch.randn(3, 4)
    arguments = {"baselines": torch.zeros(1, 4), "attribute_to_layer_input": True}
    if front_end is MetaLayerGradientShap:
        arguments["n_samples"] = 400
    found = front_end(model, model.layer).attribute(x, **arguments)
    parts = found if isinstance(found, tuple) else (found,)
    through = model.layer(x).sum(1) if isinstance(model, Past) else model(x)
    factor = x if front_end is MetaInternalInfluence else 1
    assert torch.allclose(sum(part * factor for part in parts).sum(1), through, atol=1e-2)


class Parted(nn.Module):
    """A layer whose answer has a part that is no tensor."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        given = self.layer(x.unsqueeze(1))
        return (given["all"] if isinstance(given, dict) else given[0])[:, -1, 0]


class Named(nn.Module):
    def forward(self, x: Tensor) -> dict[str, Tensor]:
        return {"all": x}


@pytest.mark.parametrize("method", OURS)
@pytest.mark.parametrize("layer", [Named(), nn.LSTM(4, 4, batch_first=True)], ids=["dict", "tuple in a tuple"])
def test_layers_that_give_something_else_than_tensors_are_named(method: type[Attribution], layer: nn.Module) -> None:
    model = Parted(layer).eval()
    arguments = asked(method, torch.ones(2, 4)) | ({"target": None} if method is NeuronConductance else {})
    with pytest.raises(AssertionError, match=rf"{type(layer).__name__} gives a (dict|tuple).*: name a layer that gives"):
        OURS[method](model, layer).attribute(**arguments)
