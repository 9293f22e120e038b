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


def net():
    torch.manual_seed(0)
    found = nn.Sequential(nn.Linear(8, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 3))
    for parameter in found.parameters():
        parameter.data *= 1.5
    return found


def exact(model, count=4000):
    """With points t = 1e-9 (e^(L u) - 1), u in the middle of equal intervals."""
    length = torch.tensor(1e9, dtype=torch.float64).log1p()
    u = (torch.arange(count, dtype=torch.float64) + 0.5) / count
    points, weights = 1e-9 * (length * u).expm1(), 1e-9 * length * (length * u).exp() / count
    at = (points.reshape(-1, 1, 1) * X.double()).requires_grad_()
    model.double()
    (gradients,) = torch.autograd.grad(model(at.flatten(0, 1))[:, 0].sum(), at)
    model.float()
    return (X * (gradients * weights.reshape(-1, 1, 1)).sum(0)).float()


class Behind(nn.Module):
    def __init__(self, first):
        super().__init__()
        self.first, self.layer, self.net = first, nn.Identity(), net()

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
