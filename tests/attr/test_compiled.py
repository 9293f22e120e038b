"""Models that torch.compile has compiled: hooks, several outputs, and graphs that are kept."""

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Attribution, LayerAttribution, NeuronAttribution
from torch import Tensor, nn

from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaKernelShap
from tests.attr.front_ends import PEERS, asked

X = torch.linspace(-1, 1, 12).reshape(3, 4)
OF_LAYERS = {method: ours for method, ours in PEERS.items() if issubclass(method, (LayerAttribution, NeuronAttribution))}


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 3), nn.Linear(3, 2)
        for number, parameter in enumerate(self.parameters()):
            nn.init.uniform_(parameter, -1, 1, torch.Generator().manual_seed(number))

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.layer(x).tanh())


def compiled(used: bool, in_place: bool = False) -> tuple[Net, Callable[..., Any]]:
    """A net, and itself compiled."""
    torch.compiler.reset()
    net = Net().eval()
    if in_place:
        net.compile(backend="aot_eager")
    model = net if in_place else torch.compile(net, backend="aot_eager")
    if used:
        model(X)
        model(X.clone().requires_grad_())
    return net, model


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("in_place", [False, True])
@pytest.mark.parametrize("method", OF_LAYERS)
def test_layers(method: type[Attribution], in_place: bool, used: bool) -> None:
    net, model = compiled(used, in_place)
    plain, arguments = Net().eval(), asked(method, X, target=1)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "forward_func|Dynamo")
        found = OF_LAYERS[method](model, net.layer).attribute(**arguments)  # type: ignore[call-arg]
    assert torch.allclose(found, OF_LAYERS[method](plain, plain.layer).attribute(**arguments), atol=1e-6)  # type: ignore[call-arg]


CALLS: dict[str, Callable[[Any], Tensor]] = {
    "kernel": lambda model: MetaKernelShap(model).attribute(X, outputs="all"),
    "path": lambda model: MetaIntegratedGradients(model).attribute(X, outputs="all"),
    "draws": lambda model: MetaGradientShap(model).attribute(X, torch.zeros(1, 4), outputs="all"),
    "graph": lambda model: MetaIntegratedGradients(model).attribute(X.clone().requires_grad_(), target=1, create_graph=True),
}


@pytest.mark.parametrize("call", CALLS)
def test_graphs_that_are_kept(call: str) -> None:
    with warnings.catch_warnings():
        warnings.filterwarnings("error", "forward_func|Dynamo")
        found = CALLS[call](compiled(True)[1])
    assert torch.allclose(found, CALLS[call](Net().eval()), atol=1e-6)


def test_the_compilers_setting_is_put_back() -> None:
    runs: list[bool] = []

    def backend(graph: Any, _: Any) -> Callable[..., Any]:
        runs.append(True)
        return graph.forward  # type: ignore[no-any-return]

    net, _ = compiled(False)
    MetaIntegratedGradients(torch.compile(net, backend="aot_eager")).attribute(X, outputs="all")
    torch.compile(net, backend=backend)(X)
    assert runs
