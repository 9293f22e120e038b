"""Small networks that several comparisons explain, and how they learn to classify."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


def residual(width: int, hidden: int, activation: type[nn.Module]) -> Residual:
    """Of a layer norm and an MLP with one hidden layer."""
    return Residual(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, hidden), activation(), nn.Linear(hidden, width)))


def perceptron(*sizes: int, activation: type[nn.Module] = nn.ReLU) -> nn.Sequential:
    """An MLP whose layers have these sizes, the inputs first and the outputs last."""
    layers: list[nn.Module] = []
    for inputs, outputs in pairwise(sizes):
        layers += [nn.Linear(inputs, outputs), activation()]
    return nn.Sequential(*layers[:-1])


class Recurrent(nn.Module):
    """A GRU over the lines of an image, the steps of a sequence or the features of a table, read at its end."""

    def __init__(self, width: int, n_outputs: int, hidden: int = 24) -> None:
        super().__init__()
        self.width = width
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.out = nn.Linear(hidden, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x.reshape(len(x), -1, self.width))[0][:, -1])


class FeatureTransformer(nn.Module):
    """Every feature a token; one or two encoder layers; mean over tokens."""

    def __init__(self, n_features: int, n_outputs: int, depth: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(n_features, 16))
        self.shift = nn.Parameter(0.1 * torch.randn(n_features, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(16, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x.unsqueeze(-1) * self.scale + self.shift).mean(1))


def learn(
    net: nn.Module,
    inputs: Tensor,
    labels: Tensor,
    steps: int,
    batch: int,
    rate: float,
    generator: torch.Generator | None = None,
) -> None:
    """Steps of Adam on the cross-entropy of random batches of the inputs."""
    optimizer = torch.optim.Adam(net.parameters(), rate)
    for _ in range(steps):
        rows = torch.randint(len(inputs), (batch,), generator=generator)
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(inputs[rows]), labels[rows]).backward()
        optimizer.step()
