"""Random explained models, a whole batch of them evaluated at once.

A model is a class with tensors for ``T`` models in ``parameters`` and ``__call__(x (T, R, M, V)) -> (T, R, K)``.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from math import isqrt

import torch
from torch import Generator, Tensor

from captum_meta.tasks.random_data import normal, pick

Activation = Callable[[Tensor], Tensor]
_ACTIVATIONS: tuple[Activation, ...] = (
    torch.relu,
    torch.nn.functional.gelu,
    torch.tanh,
    torch.nn.functional.silu,
    torch.sigmoid,
    torch.nn.functional.leaky_relu,
)


def activation(generator: Generator) -> Activation:
    """A random activation function."""
    return pick(generator, *_ACTIVATIONS)


def integer(low: int, high: int, generator: Generator) -> int:
    """A random whole number from ``low`` to ``high``, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))


class BatchedModel:
    """``T`` models of one architecture; ``has_gradient`` is False for steps and trees.

    Where a step of training costs many times that of the others, so many times fewer are taken: ``step_cost``.
    """

    has_gradient = True
    step_cost = 1

    def __init__(self, n_tasks: int, generator: Generator) -> None:
        self.parameters: list[Tensor] = []
        self.generator = generator
        self.n_tasks = n_tasks
        self.gain = 2.0 ** float(torch.empty(()).uniform_(-0.5, 1.0, generator=generator))

    def weight(self, *shape: int, fan_in: int) -> Tensor:
        """A random parameter of every model, ``(T, *shape)``."""
        value = normal((self.n_tasks, *shape), self.generator) * self.gain / fan_in**0.5
        self.parameters.append(value)
        return value

    def bias(self, *shape: int) -> Tensor:
        """A small random parameter, ``(T, *shape)``."""
        value = 0.2 * normal((self.n_tasks, *shape), self.generator)
        self.parameters.append(value)
        return value

    def affine(self, inputs: int, outputs: int) -> tuple[Tensor, Tensor]:
        """Weight ``(T, inputs, outputs)`` and bias ``(T, 1, outputs)``."""
        return self.weight(inputs, outputs, fan_in=inputs), self.bias(1, outputs)

    def __call__(self, x: Tensor) -> Tensor:
        raise NotImplementedError


def apply_affine(x: Tensor, layer: tuple[Tensor, Tensor]) -> Tensor:
    """Weight and bias of every model, on ``(T, *, inputs)``."""
    weight, bias = layer
    return torch.baddbmm(bias, x.reshape(len(x), -1, x.shape[-1]), weight).reshape(*x.shape[:-1], weight.shape[-1])


def _normalise(x: Tensor) -> Tensor:
    return torch.nn.functional.layer_norm(x, x.shape[-1:])


def _attention(projected: Tensor, heads: int, asking: int | None = None) -> Tensor:
    """Attention of the first ``asking`` tokens (all): queries, keys, values ``(T, R, M, 3 D)`` to ``(T, R, asking, D)``."""
    q, k, v = projected.unflatten(-1, (3, heads, -1)).unbind(-3)
    q = q[:, :, :asking]
    scores = torch.einsum("trmhd,trnhd->trhmn", q, k) / q.shape[-1] ** 0.5
    return torch.einsum("trhmn,trnhd->trmhd", scores.softmax(-1), v).flatten(-2)


class MLP(BatchedModel):
    """One to four hidden layers."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        sizes = [n_players * width] + [2 ** integer(3, 6, generator)] * integer(1, 4, generator)
        self.layers = [self.affine(a, b) for a, b in pairwise(sizes)]
        self.out = self.affine(sizes[-1], outputs)
        self.activation = activation(generator)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        for layer in self.layers:
            x = self.activation(apply_affine(x, layer))
        return apply_affine(x, self.out)


class ResidualMLP(BatchedModel):
    """Residual blocks with or without layer normalisation."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        hidden = 2 ** integer(4, 5, generator)
        self.enter = self.affine(n_players * width, hidden)
        self.blocks = [(self.affine(hidden, hidden), self.affine(hidden, hidden)) for _ in range(integer(1, 3, generator))]
        self.out = self.affine(hidden, outputs)
        self.activation = activation(generator)
        self.normalise = bool(pick(generator, True, False))

    def __call__(self, x: Tensor) -> Tensor:
        x = apply_affine(x.flatten(2), self.enter)
        for first, second in self.blocks:
            inner = _normalise(x) if self.normalise else x
            x = x + apply_affine(self.activation(apply_affine(inner, first)), second)
        return apply_affine(_normalise(x) if self.normalise else self.activation(x), self.out)


class Transformer(BatchedModel):
    """Players are tokens: each with its own embedding (tables) or with a shared one (sentences)."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.size = 16
        self.heads = integer(1, 2, generator) * 2
        rows = n_players if width == 1 else 1
        self.embed = self.weight(rows, width, self.size, fan_in=width)
        self.position = self.bias(n_players, self.size)
        self.layers = [self._layer() for _ in range(integer(1, 2, generator))]
        self.out = self.affine(self.size, outputs)
        self.activation = activation(generator)
        self.first_token = bool(pick(generator, True, False))

    def _layer(self) -> list[tuple[Tensor, Tensor]]:
        size = self.size
        return [
            self.affine(size, 3 * size),
            self.affine(size, size),
            self.affine(size, 2 * size),
            self.affine(2 * size, size),
        ]

    def __call__(self, x: Tensor) -> Tensor:
        x = torch.einsum("trmv,tmvd->trmd", x, self.embed.expand(-1, x.shape[2], -1, -1)) + self.position.unsqueeze(1)
        for qkv, out, up, down in self.layers:
            asking = 1 if self.first_token and qkv is self.layers[-1][0] else None  # what else would not be read
            attended = _attention(apply_affine(_normalise(x), qkv), self.heads, asking)
            x = x[:, :, :asking] + apply_affine(attended, out)
            x = x + apply_affine(self.activation(apply_affine(_normalise(x), up)), down)
        return apply_affine(_normalise(x.mean(2)), self.out)


class Encoder(BatchedModel):
    """A sentence encoder in the manner of BERT: two to four layers, each normalised behind its residual connections.

    The sentence stands between two tokens of its own, all are normalised with their positions before the first layer, and
    the outputs are cosine similarities of the mean token with random directions.
    """

    step_cost = 4

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.size, self.heads = width, 2 * integer(1, 2, generator)
        self.ends = self.weight(2, width, fan_in=1)
        scale = 2.0 ** float(torch.empty(()).uniform_(-3, 0, generator=generator))
        self.position = scale * normal((n_tasks, n_players + 2, width), generator)
        self.layers = [self._layer() for _ in range(integer(2, 4, generator))]
        self.directions = self.weight(width, outputs, fan_in=width)

    def _layer(self) -> list[tuple[Tensor, Tensor]]:
        sizes = ((1, 3), (1, 1), (1, 4), (4, 1))
        return [self.affine(a * self.size, b * self.size) for a, b in sizes]

    def __call__(self, x: Tensor) -> Tensor:
        first, last = self.ends[:, :, None, None].expand(-1, -1, x.shape[1], 1, -1).unbind(1)
        x = _normalise(torch.cat([first, x, last], dim=2) + self.position.unsqueeze(1))
        for qkv, out, up, down in self.layers:
            x = _normalise(x + apply_affine(_attention(apply_affine(x, qkv), self.heads), out))
            x = _normalise(x + apply_affine(torch.nn.functional.gelu(apply_affine(x, up)), down))
        mean = torch.nn.functional.normalize(x.mean(2), dim=-1)
        return mean @ torch.nn.functional.normalize(self.directions, dim=-2)


class Recurrent(BatchedModel):
    """A gated recurrent net that reads the players in order."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.size = 16
        self.step = self.affine(width + self.size, 2 * self.size)
        self.out = self.affine(self.size, outputs)

    def __call__(self, x: Tensor) -> Tensor:
        state = x.new_zeros(*x.shape[:2], self.size)
        for token in x.unbind(2):
            gate, candidate = apply_affine(torch.cat([token, state], dim=-1), self.step).chunk(2, dim=-1)
            gate = torch.sigmoid(gate)
            state = gate * state + (1 - gate) * torch.tanh(candidate)
        return apply_affine(state, self.out)


class Convolutional(BatchedModel):
    """Two convolutions over square patches, then a linear layer."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.grid, self.patch = isqrt(n_players), isqrt(width)
        self.first = self.weight(6, 1, 3, 3, fan_in=9)
        self.second = self.weight(8, 6, 3, 3, fan_in=54)
        side = (self.grid * self.patch + 1) // 2
        side = (side + 1) // 2
        self.out = self.affine(8 * side * side, outputs)
        self.activation = activation(generator)

    def __call__(self, x: Tensor) -> Tensor:
        n_tasks, n_rows = x.shape[:2]
        side = self.grid * self.patch
        images = x.reshape(n_tasks, n_rows, self.grid, self.grid, self.patch, self.patch).transpose(3, 4)
        images = images.reshape(n_tasks, n_rows, side, side).transpose(0, 1)
        for weight in (self.first, self.second):
            images = torch.nn.functional.conv2d(images, weight.flatten(0, 1), stride=2, padding=1, groups=n_tasks)
            images = self.activation(images)
        return apply_affine(images.reshape(n_rows, n_tasks, -1).transpose(0, 1), self.out)


class Interactions(BatchedModel):
    """Sums of products of squashed players: additive games, pairs and higher orders of chosen weight."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.slope = self.weight(n_players, width, fan_in=width)
        self.shift = self.bias(n_players)
        self.sets = []
        for order in range(1, min(integer(1, 5, generator), n_players) + 1):
            ranks = torch.rand(n_tasks, 2 * n_players, n_players, generator=generator).argsort(-1)
            self.sets.append((ranks[..., :order], self.weight(2 * n_players, outputs, fan_in=n_players)))

    def __call__(self, x: Tensor) -> Tensor:
        squashed = torch.tanh((x * self.slope.unsqueeze(1)).sum(-1) + self.shift.unsqueeze(1))
        total = x.new_zeros(())
        for players, weight in self.sets:
            index = players.flatten(1).unsqueeze(1).expand(-1, x.shape[1], -1)
            chosen = squashed.gather(2, index).unflatten(-1, players.shape[1:])
            total = total + chosen.prod(-1) @ weight
        return total


class Trees(BatchedModel):
    """Sums of oblivious decision trees: step functions, without a gradient."""

    has_gradient = False

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        n_trees, depth = 2 ** integer(3, 6, generator), integer(1, 4, generator)
        self.columns = torch.randint(n_players * width, (n_tasks, n_trees * depth), generator=generator)
        self.thresholds = normal((n_tasks, n_trees * depth), generator)
        self.leaves = normal((n_tasks, n_trees, 2**depth, outputs), generator) / n_trees**0.5
        self.depth = depth

    def __call__(self, x: Tensor) -> Tensor:
        flat = x.flatten(2)
        chosen = flat.gather(2, self.columns.unsqueeze(1).expand(-1, flat.shape[1], -1))
        bits = (chosen > self.thresholds.unsqueeze(1)).unflatten(-1, (-1, self.depth))
        leaf = (bits * 2 ** torch.arange(self.depth)).sum(-1)
        tree = torch.arange(self.leaves.shape[1])
        return torch.stack([part[tree, rows].sum(-2) for part, rows in zip(self.leaves, leaf, strict=True)])


def train(model: BatchedModel, x: Tensor, targets: Tensor, classify: bool, steps: int, rate: float) -> None:
    """Adam on minibatches, all models at once; leaves the parameters without gradients."""
    if not model.parameters or steps == 0:
        return
    for parameter in model.parameters:
        parameter.requires_grad_(True)
    optimizer = torch.optim.Adam(model.parameters, lr=rate, fused=True)
    labels = targets.argmax(-1)
    for _ in range(steps):
        rows = torch.randint(x.shape[1], (64,), generator=model.generator)
        outputs = model(x[:, rows])
        if classify:
            loss = torch.nn.functional.cross_entropy(outputs.flatten(0, 1), labels[:, rows].flatten(), reduction="sum")
        else:
            loss = (outputs - targets[:, rows]).square().sum()
        optimizer.zero_grad()
        (loss / len(rows)).backward()
        optimizer.step()
    for parameter in model.parameters:
        parameter.requires_grad_(False).grad = None
