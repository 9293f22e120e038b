"""Random explained models as libraries build them: encodings, steps, gates, mixtures, long memory, attention pooling."""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from captum_meta.tasks.random_data import normal, pick
from captum_meta.tasks.random_models import BatchedModel, activation, apply_affine, integer


class PiecewiseLinear(BatchedModel):
    """Each number as its way through random bins, then a hidden layer: flat outside the bins (Gorishniy et al. 2022)."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.bins, hidden = integer(2, 8, generator), 2 ** integer(4, 6, generator)
        self.edges = normal((n_tasks, 1, n_players * width, self.bins + 1), generator).sort(-1).values
        self.enter = self.affine(n_players * width * self.bins, hidden)
        self.out = self.affine(hidden, outputs)
        self.activation = activation(generator)

    def __call__(self, x: Tensor) -> Tensor:
        low, high = self.edges[..., :-1], self.edges[..., 1:]
        encoded = ((x.flatten(2).unsqueeze(-1) - low) / (high - low + 0.05)).clamp(0, 1)
        return apply_affine(self.activation(apply_affine(encoded.flatten(2), self.enter)), self.out)


class Stepped(BatchedModel):
    """Some players enter by thresholds or rounded, as categories and counts do: these are flat in the gradient."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        hidden = 2 ** integer(3, 6, generator)
        share = 0.2 + 0.8 * torch.rand((), generator=generator)
        self.stepped = torch.rand(n_tasks, 1, n_players * width, generator=generator) < share
        self.thresholds = 0.7 * normal((n_tasks, 1, n_players * width), generator)
        self.rounded = bool(pick(generator, True, False))
        self.enter = self.affine(n_players * width, hidden)
        self.inner = self.affine(hidden, hidden)
        self.out = self.affine(hidden, outputs)
        self.activation = activation(generator)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        steps = (x - self.thresholds).round() if self.rounded else (x > self.thresholds).to(x)
        x = self.activation(apply_affine(torch.where(self.stepped, steps.detach(), x), self.enter))
        return apply_affine(self.activation(apply_affine(x, self.inner)), self.out)


class Gated(BatchedModel):
    """A mixture of experts, or masks of attention over the columns that multiply them (as in TabNet)."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        columns, hidden = n_players * width, 2 ** integer(3, 5, generator)
        self.masks, self.experts = bool(pick(generator, True, False)), integer(2, 4, generator)
        self.gate = self.affine(columns, self.experts * (columns if self.masks else 1))
        self.enter = [self.affine(columns, 2 * hidden) for _ in range(self.experts)]
        self.out = [self.affine(hidden, outputs) for _ in range(self.experts)]
        self.sharp = pick(generator, 1.0, 3.0)

    def __call__(self, x: Tensor) -> Tensor:
        x = x.flatten(2)
        gates = (self.sharp * apply_affine(x, self.gate)).unflatten(-1, (self.experts, -1))
        gates = gates.softmax(-1 if self.masks else -2)
        total = x.new_zeros(())
        for gate, enter, out in zip(gates.unbind(-2), self.enter, self.out, strict=True):
            inner = torch.nn.functional.glu(apply_affine(x * gate * x.shape[-1] if self.masks else x, enter))
            answer = apply_affine(inner, out)
            total = total + (answer if self.masks else gate * answer)
        return total


class LongMemory(BatchedModel):
    """An LSTM that reads the players in order, and answers from its last state or its mean."""

    step_cost = 2

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.size = 12
        self.step = self.affine(width + self.size, 4 * self.size)
        self.out = self.affine(self.size, outputs)
        self.last = bool(pick(generator, True, False))

    def __call__(self, x: Tensor) -> Tensor:
        state = memory = total = x.new_zeros(*x.shape[:2], self.size)
        for token in x.unbind(2):
            enter, keep, leave, new = apply_affine(torch.cat([token, state], dim=-1), self.step).chunk(4, dim=-1)
            memory = torch.sigmoid(keep + 1) * memory + torch.sigmoid(enter) * torch.tanh(new)
            state = torch.sigmoid(leave) * torch.tanh(memory)
            total = total + state
        return apply_affine(state if self.last else total / x.shape[2], self.out)


class AttentionPooling(BatchedModel):
    """Tokens by themselves, weighted by how much each asks for attention, then a hidden layer: linear in the players."""

    def __init__(self, n_tasks: int, n_players: int, width: int, outputs: int, generator: Generator) -> None:
        super().__init__(n_tasks, generator)
        self.size = 16
        rows = n_players if width == 1 else 1
        self.embed = self.weight(rows, width, self.size, fan_in=width)
        self.position = self.bias(n_players if width == 1 else 1, self.size)
        self.score, self.value = self.affine(self.size, 2), self.affine(self.size, self.size)
        self.enter, self.out = self.affine(2 * self.size, 2 * self.size), self.affine(2 * self.size, outputs)
        self.activation, self.sharp = activation(generator), pick(generator, 1.0, 2.0, 4.0)

    def __call__(self, x: Tensor) -> Tensor:
        x = torch.einsum("trmv,tmvd->trmd", x, self.embed.expand(-1, x.shape[2], -1, -1)) + self.position.unsqueeze(1)
        weights = (self.sharp * apply_affine(x, self.score)).softmax(2)
        pooled = torch.einsum("trmh,trmd->trhd", weights, self.activation(apply_affine(x, self.value))).flatten(2)
        return apply_affine(self.activation(apply_affine(pooled * x.shape[2] ** 0.25, self.enter)), self.out)
