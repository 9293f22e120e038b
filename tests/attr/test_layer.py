"""Integrated Gradients of a layer: Captum's contract, and the value of a long run on what the layer gives."""

import copy
from typing import Any

import pytest
import torch
from captum.attr import LayerIntegratedGradients
from captum.testing.attr.helpers.test_config import config
from torch import Tensor, nn

from captum_meta.attr import MetaLayerIntegratedGradients
from captum_meta.evidence import LayerModel
from tests.attr.comparing import assert_same, module, snapshot, structure
from tests.attr.conftest import untrained


def explain(model: nn.Module, layer: Any, **arguments: Any) -> MetaLayerIntegratedGradients:
    return MetaLayerIntegratedGradients(model, layer, learner=untrained("path"), **arguments)


def cases() -> list[Any]:
    chosen = [entry for entry in config if LayerIntegratedGradients in entry["algorithms"] and not entry.get("noise_tunnel")]
    return [pytest.param(entry, id=entry["name"]) for entry in chosen]


def shapes(value: Any) -> Any:
    return [structure(part) for part in value] if isinstance(value, list) else structure(value)


@pytest.mark.parametrize("entry", cases())
def test_captums_own_configurations(entry: dict[str, Any]) -> None:
    model, arguments = copy.deepcopy(entry["model"]), entry["attribute_args"]
    layer = module(model, entry["layer"])
    theirs = LayerIntegratedGradients(model, layer).attribute(**arguments)
    assert shapes(explain(model, layer).attribute(**arguments)) == shapes(theirs)


class Text(nn.Module):
    """Tokens to classes; additional arguments say which positions count."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(20, 4)
        self.mix = nn.GRU(4, 6, batch_first=True)
        self.out = nn.Linear(6, 3)

    def forward(self, tokens: Tensor, counts: Tensor | None = None) -> Tensor:
        hidden = self.mix(self.embed(tokens))[0]
        weights = torch.ones_like(tokens) if counts is None else counts
        return self.out((hidden * weights.unsqueeze(-1)).sum(1)).tanh()


@pytest.fixture
def text() -> tuple[Text, Tensor]:
    return Text(), torch.randint(1, 20, (5, 7))


def test_long_paths_agree_with_captum(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    counts = torch.randint(0, 2, (5, 7))
    arguments: dict[str, Any] = {"target": torch.tensor([0, 1, 2, 0, 1]), "additional_forward_args": (counts,)}
    values = explain(model, model.embed).attribute(tokens, n_steps=14, **arguments)
    expected = LayerIntegratedGradients(model, model.embed).attribute(tokens, n_steps=200, **arguments)
    assert values.shape == (5, 7, 4)
    assert torch.allclose(values, expected, atol=1e-4)


def test_inputs_of_a_layer(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    values = explain(model, model.out).attribute(tokens, target=1, n_steps=14, attribute_to_layer_input=True)
    expected = LayerIntegratedGradients(model, model.out)
    assert torch.allclose(
        values, expected.attribute(tokens, target=1, n_steps=200, attribute_to_layer_input=True), atol=1e-4
    )


def test_attributions_sum_to_the_change_of_the_output(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    values, delta = explain(model, model.embed).attribute(tokens, 3, target=2, n_steps=40, return_convergence_delta=True)
    change = (model(tokens) - model(torch.full_like(tokens, 3)))[:, 2]
    assert torch.allclose(values.sum((1, 2)), change, atol=1e-5)
    theirs = LayerIntegratedGradients(model, model.embed)
    _, expected = theirs.attribute(tokens, 3, target=2, n_steps=40, return_convergence_delta=True)
    assert torch.allclose(delta, expected, atol=1e-5)


def test_multipliers(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    gradients = explain(model, model.embed, multiply_by_inputs=False).attribute(tokens, target=1, n_steps=14)
    whole = explain(model, model.embed).attribute(tokens, target=1, n_steps=14)
    assert torch.allclose(gradients * (model.embed(tokens) - model.embed(torch.zeros_like(tokens))), whole, atol=1e-5)


def test_several_layers_give_a_list() -> None:
    model = nn.ModuleDict({"left": nn.Linear(3, 4), "right": nn.Linear(3, 2)})

    def forward(x: Tensor) -> Tensor:
        return model["left"](x).tanh().sum(1) * model["right"](x).sigmoid().sum(1)

    layers = [model["left"], model["right"]]
    x = torch.randn(4, 3)
    with pytest.warns(UserWarning, match="Multiple layers"):
        values = explain(forward, layers).attribute(x, n_steps=14)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="Multiple layers"):
        expected = LayerIntegratedGradients(forward, layers).attribute(x, n_steps=200)
    assert isinstance(values, list) and [v.shape for v in values] == [(4, 4), (4, 2)]
    assert all(torch.allclose(v, e, atol=1e-4) for v, e in zip(values, expected, strict=True))


def test_chunks_and_companions_change_nothing(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    attr = explain(model, model.embed)
    whole = attr.attribute(tokens, target=0)
    assert torch.allclose(attr.attribute(tokens, target=0, internal_batch_size=2), whole, atol=1e-5)
    assert torch.allclose(attr.attribute(tokens[3:4], target=0)[0], whole[3], atol=1e-5)


def test_adapts_to_explained_rows(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    attr = MetaLayerIntegratedGradients(model, model.embed, learner="ridge").adapt(tokens, target=0)
    assert attr.attribute(tokens, target=0).shape == (5, 7, 4)
    attr.reset().adapt(tokens, target=0, attributions=torch.randn(5, 7, 4))
    with pytest.raises(AssertionError, match="attributions have the shapes"):
        attr.adapt(tokens, target=0, attributions=torch.randn(5, 7))


@pytest.mark.parametrize("raises", [False, True])
def test_the_explained_model_is_left_as_it_was(raises: bool) -> None:
    model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(8, 2)).train()
    model[0].weight.requires_grad_(False)
    x = torch.randn(4, 6, requires_grad=True)
    attr, before = explain(model, model[0]), snapshot(model, x)
    if raises:
        with pytest.raises((AssertionError, IndexError)):
            attr.attribute(x, target=9)
    else:
        attr.attribute(x, target=0)
    assert_same(snapshot(model, x), before)


def test_a_layer_that_does_not_run_is_named(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    with pytest.raises(AssertionError, match="Linear gave nothing for 5 examples"):
        explain(model, nn.Linear(2, 2)).attribute(tokens, target=0)


def test_the_rest_of_the_model_is_the_model(text: tuple[Text, Tensor]) -> None:
    model, tokens = text
    rest = LayerModel(model, [model.embed])
    (values,) = rest.activations((tokens,), (), 2)
    assert torch.equal(values, model.embed(tokens))
    assert torch.allclose(rest(values, tokens), model(tokens), atol=1e-6)
    assert not model.embed._forward_hooks
