"""Small trained nets of three kinds with a layer and a neuron of each."""

from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.nn.functional import nll_loss

Selector = int | tuple[int, ...]


class Convolutional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.MaxPool2d(2))
        self.rest = nn.Sequential(
            nn.Conv2d(6, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(72, 16), nn.ReLU(), nn.Linear(16, 3)
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


class Probabilities(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Linear(10, 24), nn.Tanh())
        self.rest = nn.Sequential(nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 3), nn.Softmax(-1))

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.first(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.mix, self.rest = nn.Linear(5, 8), nn.GRU(8, 12, batch_first=True), nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.rest(self.mix(self.first(x))[0][:, -1])


@dataclass(frozen=True)
class Explained:
    """A net, rows of it, their classes, the layer that is explained, and one of its neurons."""

    net: nn.Module
    x: Tensor
    target: Tensor
    neuron: Selector

    @property
    def layer(self) -> nn.Module:
        return self.net.first  # type: ignore[return-value]


KINDS: dict[str, tuple[type[nn.Module], tuple[int, ...], Selector]] = {
    "convolutional": (Convolutional, (1, 12, 12), (1, 2, 3)),
    "probabilities": (Probabilities, (10,), 3),
    "recurrent": (Recurrent, (6, 5), (5, 2)),
}


@lru_cache
def explained(kind: str, seed: int = 0) -> Explained:
    make, shape, neuron = KINDS[kind]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        x, net = torch.randn(200, *shape), make()
        flat = x.flatten(1)
        y = (flat @ torch.randn(flat.shape[1], 3) + flat.square() @ torch.randn(flat.shape[1], 3)).argmax(1)
        optimizer = torch.optim.Adam(net.parameters(), 1e-2)
        for _ in range(100):
            output = net(x)
            loss = nll_loss(output.clamp(min=1e-9).log() if kind == "probabilities" else output.log_softmax(-1), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    return Explained(net.eval(), x[:6], y[:6], neuron)
