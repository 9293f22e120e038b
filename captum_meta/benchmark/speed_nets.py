"""Models and rows whose explanations are timed: the nets of the default calls, long audio, a large image, a small MLP."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Generator, Tensor, nn

from captum_meta.benchmark import nets
from captum_meta.benchmark.default_nets import trained

_SAMPLES, _SIDE, _CLASSES = 16_000, 224, 10


@dataclass(frozen=True)
class Timed:
    """A model and the rows ``(B, *features)`` to explain of its output ``target``."""

    model: Callable[..., Tensor]
    inputs: Tensor
    target: int = 0


class BasicBlock(nn.Module):
    """Two convolutions beside a shortcut (He et al. 2016)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU())
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.second(self.first(x)) + self.shortcut(x))


def _resnet() -> nn.Module:
    """ResNet-18, with initial weights."""
    stem = [nn.Conv2d(3, 64, 7, 2, 3, bias=False), nn.BatchNorm2d(64), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
    widths = (64, 64, 128, 256, 512)
    stages = [
        block
        for k, (a, b) in enumerate(pairwise(widths))
        for block in (BasicBlock(a, b, 1 if k == 0 else 2), BasicBlock(b, b, 1))
    ]
    return nn.Sequential(*stem, *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(512, 1000))


def _audio() -> nn.Module:
    """Four strided convolutions over a second of sound."""
    widths = (1, 16, 32, 64, 64)
    layers = [layer for a, b in pairwise(widths) for layer in (nn.Conv1d(a, b, 9, 4, 4), nn.ReLU())]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(4), nn.Flatten(), nn.Linear(4 * widths[-1], _CLASSES))


def perceptron(n_players: int, n_rows: int) -> Timed:
    """Rows of an MLP with two hidden layers of 128 units and 3 outputs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nets.perceptron(n_players, 128, 128, 3)
    return Timed(model.eval().requires_grad_(False), torch.randn(n_rows, n_players, generator=Generator().manual_seed(0)))


def _untrained(model: nn.Module, inputs: Tensor) -> Timed:
    return Timed(model.eval().requires_grad_(False), inputs)


def path_case(name: str) -> Timed:
    """The case of this name, one of :data:`PATHS`; the same every time."""
    if name == "MLP":
        return perceptron(30, 64)
    if name not in ("audio", "image"):
        net = trained(name, False)
        return Timed(net.model, net.inputs)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        if name == "audio":
            return _untrained(_audio(), torch.randn(4, 1, _SAMPLES))
        return _untrained(_resnet(), torch.randn(1, 3, _SIDE, _SIDE))


PATHS = ("MLP", "CNN", "GRU", "transformer", "audio", "image")
