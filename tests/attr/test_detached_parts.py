"""Parts of a net whose gradients are missing: their rows get Captum's answer, also of few gradients and of ReLU nets."""

import warnings

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from captum_meta.attr import MetaIntegratedGradients

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(7))


def net(activation):
    found = nn.Sequential(nn.Linear(8, 32), activation(), nn.Linear(32, 32), activation(), nn.Linear(32, 3))
    for parameter in found.parameters():
        parameter.data *= 1.5
    return found


def one_hot(scores):
    soft = scores.softmax(1)
    return nn.functional.one_hot(soft.argmax(1), 3) + soft - soft.detach()


PARTS = {
    "weights": lambda x, one, two: one(x).softmax(1).detach() * two(x),
    "gates": lambda x, one, two: one(x).sigmoid().detach() * two(x),
    "a fifth": lambda x, one, two: one(x) + two(x).detach() / 5,
    "a choice": lambda x, one, two: two(torch.cat([x[:, :5], one_hot(one(x))], dim=1)),
}


def errors(values, model):
    right = IntegratedGradients(model).attribute(X, target=0, n_steps=400)
    return (values - right).square().sum(1) / right.square().sum(1)


@pytest.mark.parametrize("steps", [None, 2, 3, 5])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU])
@pytest.mark.parametrize("part", PARTS)
def test_what_they_do_is_not_shared_out(part, activation, steps):
    torch.manual_seed(0)
    one, two = net(activation), net(activation)

    def model(x):
        return PARTS[part](x, one, two)

    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        values = MetaIntegratedGradients(model).attribute(X, target=0, n_steps=steps)
    captums = IntegratedGradients(model).attribute(X, target=0, n_steps=steps or 50)
    ours, theirs = errors(values, model), errors(captums, model)
    assert ours.mean() < 1.3 * theirs.mean() + 1e-3


@pytest.mark.parametrize("steps", [1, 2, 3, 5])
@pytest.mark.parametrize("sharpness", [1.0, 30.0])
@pytest.mark.parametrize("activation", [nn.ReLU, nn.GELU, nn.Hardtanh])
def test_nets_without_such_parts_are_not_warned_of(activation, sharpness, steps):
    torch.manual_seed(0)
    plain = net(activation)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Gradients of the rows")
        MetaIntegratedGradients(lambda x: (sharpness * plain(x)).softmax(1)).attribute(X, target=0, n_steps=steps)
