"""Nets that normalise their inputs, or take their logarithm: from a baseline of zero f changes at once, and hardly after."""

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import nn

from captum_meta._model import Counted
from captum_meta.attr import MetaIntegratedGradients, MetaLayerIntegratedGradients

X = torch.randn(8, 8, generator=torch.Generator().manual_seed(11))

EARLY = {
    "layer norm": lambda x: nn.functional.layer_norm(x, (8,)),
    "layer norm, tiny epsilon": lambda x: nn.functional.layer_norm(x, (8,), eps=1e-9),
    "instance norm": lambda x: nn.functional.instance_norm(x.unflatten(1, (2, 4))).flatten(1),
    "length one": lambda x: x / (x.norm(dim=1, keepdim=True) + 0.001),
    "logarithm": lambda x: (1e4 * x.abs()).log1p() / 10,
    "root": lambda x: (x.abs() + 1e-12).sqrt(),
}


def net(seed=0, kind=nn.GELU):
    torch.manual_seed(seed)
    found = nn.Sequential(nn.Linear(8, 32), kind(), nn.Linear(32, 32), kind(), nn.Linear(32, 3))
    for parameter in found.parameters():
        parameter.data *= 1.5
    return found


def exact(model, count=4000, x=X):
    """With points t = 1e-9 (e^(L u) - 1), u in the middle of equal intervals."""
    length = torch.tensor(1e9, dtype=torch.float64).log1p()
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    points, weights = 1e-9 * (length * u).expm1(), 1e-9 * length * (length * u).exp() / count
    at = (points.reshape(-1, 1, 1) * x.double()).requires_grad_()
    model.double()
    (gradients,) = torch.autograd.grad(model(at.flatten(0, 1))[:, 0].sum(), at)
    model.float()
    return (x * (gradients * weights.reshape(-1, 1, 1)).sum(0)).float()


class Behind(nn.Module):
    def __init__(self, first, rest=None):
        super().__init__()
        self.first, self.layer, self.net = first, nn.Identity(), rest or net()

    def forward(self, x):
        return self.net(self.first(self.layer(x)))


@pytest.mark.filterwarnings("ignore:Gradients of the rows")
@pytest.mark.parametrize("first", EARLY)
def test_they_are_explained_from_fewer_gradients_than_captums(first):
    model = Behind(EARLY[first])
    right = exact(model)
    counted = Counted(model)
    values = MetaIntegratedGradients(counted).attribute(X, target=0)
    assert counted.evaluations < 8 * 3 * 50
    captums = IntegratedGradients(model).attribute(X, target=0)
    size = right.square().sum(1)
    ours, theirs = ((found - right).square().sum(1) / size for found in (values, captums))
    assert (ours < 1.05 * theirs + 2e-6).all()
    of_layer = MetaLayerIntegratedGradients(model, model.layer).attribute(X, target=0)
    torch.testing.assert_close(of_layer, values, rtol=1e-3, atol=1e-4)


@pytest.mark.filterwarnings("ignore:Gradients of the rows")
@pytest.mark.parametrize("n_steps", [50, 100])
@pytest.mark.parametrize("first", EARLY)
def test_what_many_gradients_miss_at_once_is_not_amplified(first, n_steps):
    model = Behind(EARLY[first])
    right = exact(model)
    found = (
        method(model).attribute(X, target=0, n_steps=n_steps) for method in (MetaIntegratedGradients, IntegratedGradients)
    )
    ours, theirs = ((values - right).square().sum(1) / right.square().sum(1) for values in found)
    assert ours.mean() < 1.3 * theirs.mean() + 1e-5


def test_a_row_does_not_stop_before_its_first_gradient_explains_f():
    """All that is missed lies before the first gradient, and jumps behind it were said to explain it."""
    x = torch.randn(16, 8, generator=torch.Generator().manual_seed(5))[2:3]
    model = Behind(EARLY["instance norm"], net(1, nn.ReLU))
    values, right = MetaIntegratedGradients(model).attribute(x, target=0), exact(model, x=x)
    assert (values - right).square().sum() < 0.05 * right.square().sum()  # it was .42
