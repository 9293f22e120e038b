"""Models in half precision, or with parts of it behind an output in single precision."""

import warnings

import pytest
import torch
from torch import nn

from captum_meta.attr import MetaIntegratedGradients
from captum_meta.games.references import path_mean

X = torch.randn(6, 6, generator=torch.Generator().manual_seed(0))


def perceptron(n_outputs=3):
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(6, 16), nn.GELU(), nn.Linear(16, 16), nn.GELU(), nn.Linear(16, n_outputs))
    for parameter in net.parameters():
        parameter.data *= 1.5
    return net


HALF, SINGLE, HEAD = perceptron().bfloat16(), perceptron(), nn.Linear(3, 3)


def behind_a_cast(x):
    return HALF(x.bfloat16()).float()


def before_a_head(x):
    return HEAD(behind_a_cast(x))


def under_autocast(x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = SINGLE(x)
    return hidden.float().softmax(1)


def exact(model, x):
    def gradient(points):
        at = (points.to(x).reshape(-1, 1, 1) * x).requires_grad_()
        (found,) = torch.autograd.grad(model(at.flatten(0, 1))[:, 0].sum(), at)
        return found.movedim(0, -1)

    return path_mean(gradient, 400) * x


@pytest.mark.parametrize("steps", [None, 5, 10, 12])
@pytest.mark.parametrize("model", [behind_a_cast, before_a_head, under_autocast])
def test_what_is_rounded_inside_is_neither_shared_out_nor_warned_of(model, steps):
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "Gradients of the rows|forward_func")
        values = MetaIntegratedGradients(model).attribute(X, target=0, n_steps=steps)
    right = exact(model, X)
    assert (values - right).square().sum() < 1.3e-5 * right.square().sum()


def test_weights_in_half_precision_that_are_made_single_round_nothing():
    weights = torch.randn(6, generator=torch.Generator().manual_seed(1)).bfloat16()
    values = MetaIntegratedGradients(lambda x: (x.abs() @ weights.float()).relu()).attribute(X - 0.3, 1.0, n_steps=8)
    model = (X - 0.3).abs() @ weights.float()
    torch.testing.assert_close(values.sum(1), model.relu() - weights.float().sum().relu())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
def test_a_large_detached_part_is_found(dtype):
    net, hidden = perceptron(1).bfloat16(), perceptron(1).bfloat16()

    def model(x):
        return (net(x.bfloat16()) + 3 * hidden(x.bfloat16()).detach()).to(dtype)[:, 0]

    with pytest.warns(UserWarning, match="do not explain how forward_func changes"):
        MetaIntegratedGradients(model).attribute(X)


@pytest.mark.parametrize("read", [lambda x: x.reshape(len(x), 2, 3).transpose(1, 2).flatten(1), lambda x: x[:, :].clone()])
def test_inputs_in_half_precision_that_are_moved_and_made_double_are_not_rounded(read):
    net = perceptron(1).double()
    x = X.bfloat16()
    values = MetaIntegratedGradients(lambda x: net(read(x).double())[:, 0].relu()).attribute(x, n_steps=12)
    total = net(read(x).double()).relu() - net(torch.zeros(6, 6).double()).relu()
    torch.testing.assert_close(values.double().sum(1), total[:, 0], rtol=0, atol=1e-5)
