"""Six small nets, briefly trained on data of their own, whose explanations by default calls are compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from captum_meta.benchmark.nets import Recurrent, learn, perceptron, residual

_TRAINED, _STEPS, _RATE = 512, 150, 3e-3
_ROWS, _CLASSES = 16, 3
_FEATURES, _STEPS_LONG, _CHANNELS, _SIDE, _WORDS = 12, 12, 4, 32, 8


class Transformer(nn.Module):
    """Two encoder layers over a sequence, their mean read."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(_CHANNELS, 32), nn.Linear(32, _CLASSES)
        self.positions = nn.Parameter(0.3 * torch.randn(_WORDS, 32))
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.last(self.encoder(self.first(x) + self.positions).mean(1))
        return logits


def _residual() -> nn.Module:
    first, last = nn.Linear(_FEATURES, 32), nn.Linear(32, _CLASSES)
    return nn.Sequential(first, *[residual(32, 64, nn.ReLU) for _ in range(3)], last)


def _mlp(activation: type[nn.Module]) -> nn.Module:
    return perceptron(_FEATURES, 64, 64, _CLASSES, activation=activation)


def _convolutional() -> nn.Module:
    first = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 16, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*first, nn.Flatten(), nn.Linear(16 * (_SIDE // 4) ** 2, 32), nn.ReLU(), nn.Linear(32, _CLASSES))


@dataclass(frozen=True)
class Net:
    """How one of the nets is made: the model, the shape of an input, and how many of its elements make a player."""

    build: Callable[[], nn.Module]
    shape: tuple[int, ...]
    players: tuple[int, ...]
    """Players along each of the dimensions of an input."""


NETS = {
    "ReLU MLP": Net(lambda: _mlp(nn.ReLU), (_FEATURES,), (_FEATURES,)),
    "GELU MLP": Net(lambda: _mlp(nn.GELU), (_FEATURES,), (_FEATURES,)),
    "CNN": Net(_convolutional, (3, _SIDE, _SIDE), (1, 3, 3)),
    "GRU": Net(lambda: Recurrent(_CHANNELS, _CLASSES, 32), (_STEPS_LONG, _CHANNELS), (_STEPS_LONG, 1)),
    "transformer": Net(Transformer, (_WORDS, _CHANNELS), (_WORDS, 1)),
    "residual": Net(_residual, (_FEATURES,), (_FEATURES,)),
}


@dataclass(frozen=True)
class Trained:
    """A trained net, rows of its data, the class of each, and the player of each element ``(1, *shape)``."""

    model: nn.Module
    inputs: Tensor
    target: Tensor
    players: Tensor


def trained(name: str, probabilities: bool, seed: int = 0) -> Trained:
    """The net of this name; the same every time."""
    net = NETS[name]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = net.build()
    generator = Generator().manual_seed(seed)
    inputs, labels = _data(net.shape, generator)
    learn(model, inputs[:_TRAINED], labels, _STEPS, 64, _RATE, generator)
    model = (nn.Sequential(model, nn.Softmax(1)) if probabilities else model).eval().requires_grad_(False)
    rows = inputs[_TRAINED:]
    return Trained(model, rows, model(rows).argmax(1), _groups(net))


def _data(shape: tuple[int, ...], generator: Generator) -> tuple[Tensor, Tensor]:
    """Gaussian rows, smooth along the last dimensions where there are several, classed by two products of directions."""
    inputs = torch.randn(_TRAINED + _ROWS, *shape, generator=generator)
    if len(shape) == 3:
        inputs = inputs + 4 * nn.functional.avg_pool2d(inputs, 5, 1, 2)
    flat = inputs.flatten(1)
    directions = torch.randn(_CLASSES, 2, flat.shape[1], generator=generator) / flat.shape[1] ** 0.5
    along = torch.einsum("nd,cpd->ncp", flat, directions)
    return inputs, (along[..., 0] + along.prod(-1)).argmax(1)


def _groups(net: Net) -> Tensor:
    ids = torch.zeros(net.shape, dtype=torch.long)
    for dimension, (size, players) in enumerate(zip(net.shape, net.players, strict=True)):
        indices = torch.arange(size) * players // size
        ids = ids * players + indices.reshape(-1, *[1] * (len(net.shape) - dimension - 1))
    return ids.unsqueeze(0)
