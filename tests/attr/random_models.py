"""Models, and random choices, of the random calls."""

from __future__ import annotations

import random
from typing import Any

import torch
from torch import Tensor, nn


class Model(nn.Module):
    """A small model of one ``kind`` over all elements of its inputs; elements that are not ``live`` are not read.

    It computes in float64 and answers in the precision of its first input, at least float32.
    """

    def __init__(self, kind: str, n_elements: int, output: tuple[int, ...], n_rows: int, dice: Dice) -> None:
        super().__init__()
        self.kind, self.output, self.n_rows = kind, output, n_rows
        n_outputs = max(1, torch.Size(output).numel())
        self.first = nn.Parameter(0.7 * dice.normal(n_elements, 6))
        self.bias = nn.Parameter(0.5 * dice.normal(6))
        self.second = nn.Parameter(dice.normal(6, n_outputs))
        self.norm = nn.BatchNorm1d(6).double()
        self.live = nn.Parameter(torch.ones(n_elements, 1, dtype=torch.float64), requires_grad=False)
        self.factor = 1.0
        self.largest_batch = 0

    def forward(self, *arguments: Any) -> Tensor:
        parts = [value for value in arguments if isinstance(value, Tensor) and value.dim() != 4]
        self.largest_batch = max(self.largest_batch, len(parts[0]))
        if self.kind == "fixed" and len(parts[0]) != self.n_rows:
            raise RuntimeError(f"this model takes {self.n_rows} rows, got {len(parts[0])}")
        weight = next((value.flatten() for value in arguments if isinstance(value, Tensor) and value.dim() == 4), 1.0)
        z = torch.cat([part.reshape(len(part), -1).double() for part in parts], dim=1)
        answer = self.answer(z) * torch.as_tensor(weight, dtype=torch.float64).reshape(-1, 1) * self.factor
        dtype = parts[0].dtype if parts[0].dtype == torch.float64 else torch.float32
        return answer.to(dtype).reshape(len(z), *self.output)

    def answer(self, z: Tensor) -> Tensor:
        if self.kind == "missing":
            z = torch.where(z.isnan(), 0.75, z)
        if self.kind == "round":
            z = stepped(z)
        z = z * self.live.squeeze(1)
        into = z @ self.first + self.bias
        if self.kind == "tree":
            return (into > 0).double() @ self.second
        if self.kind == "conjunction":
            return (4 * (z @ (self.first > 0).double() - 1.5).relu()) @ self.second
        if self.kind == "norm":
            return (z.square().sum(1, keepdim=True).sqrt() - 1).tanh() @ self.second[:1]
        if self.kind == "constant":
            return 3.0 + 0 * self.second[:1].detach().expand(len(z), -1)
        if self.kind == "additive":
            return stepped(z) @ self.first @ self.second
        hidden = into.relu() if self.kind == "relu" else into.tanh()
        if self.kind == "residual":
            hidden = self.norm(hidden + (2 * hidden).relu())
        answer = hidden @ self.second
        if self.kind == "coupled":
            answer = answer - answer.mean(0, keepdim=True) / 2
        return answer * {"large": 1e20, "small": 1e-20}.get(self.kind, 1.0) + (1e5 if self.kind == "offset" else 0.0)


def stepped(z: Tensor) -> Tensor:
    """Every other element rounded."""
    return torch.where(torch.arange(z.shape[1]) % 2 == 0, z.round(), z)


class Dice:
    """Random choices that follow from one number."""

    def __init__(self, number: int) -> None:
        self.random = random.Random(number)
        self.generator = torch.Generator().manual_seed(number)

    def pick(self, *options: Any) -> Any:
        return self.random.choice(options)

    def chance(self, probability: float) -> bool:
        return self.random.random() < probability

    def normal(self, *shape: int) -> Tensor:
        """Multiples of 1/16, float64: the same on every processor, and exact in half precision."""
        return (16 * torch.randn(shape, generator=self.generator)).round().clamp(-40, 40).double() / 16
