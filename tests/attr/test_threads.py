"""Another thread evaluates the model while it is explained."""

from concurrent.futures import ThreadPoolExecutor
from threading import get_ident
from typing import Any

import pytest
import torch
from captum.attr import Attribution, LayerAttribution, NeuronAttribution
from torch import Tensor, nn

from tests.attr.front_ends import PEERS, asked

OF_LAYERS = {method: ours for method, ours in PEERS.items() if issubclass(method, (LayerAttribution, NeuronAttribution))}
OTHERS = torch.linspace(-2, 2, 20).reshape(5, 4)


class Served(nn.Module):
    """A net that another thread evaluates within each of its forwards, where ``busy``."""

    def __init__(self, busy: bool) -> None:
        super().__init__()
        self.layer, self.last = nn.Linear(4, 3), nn.Linear(3, 2)
        self.owner, self.busy = get_ident(), busy
        self.served: list[Tensor] = []
        for number, parameter in enumerate(self.parameters()):
            nn.init.uniform_(parameter, -1, 1, torch.Generator().manual_seed(number))

    def forward(self, x: Tensor) -> Tensor:
        values = self.layer(x)
        if self.busy and get_ident() == self.owner:
            with torch.no_grad(), ThreadPoolExecutor(1) as pool:
                self.served.append(pool.submit(self, OTHERS).result())
        return self.last(values.tanh())


@pytest.mark.parametrize("of_inputs", [False, True])
@pytest.mark.parametrize("method", OF_LAYERS)
def test_layers_are_those_of_the_thread_that_explains(method: type[Attribution], of_inputs: bool) -> None:
    busy, quiet, x = Served(True).eval(), Served(False).eval(), torch.linspace(-1, 1, 12).reshape(3, 4)
    name = "attribute_to_neuron_input" if issubclass(method, NeuronAttribution) else "attribute_to_layer_input"
    arguments: dict[str, Any] = asked(method, x, target=1) | {name: of_inputs}
    found, expected = (OF_LAYERS[method](net, net.layer).attribute(**arguments) for net in (busy, quiet))  # type: ignore[call-arg]
    assert torch.equal(found, expected)
    with torch.no_grad():
        right = quiet(OTHERS)
    assert busy.served and all(torch.equal(one, right) for one in busy.served)
