"""The games of many models at once, such as the synthetic ones of training."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor


@dataclass(frozen=True)
class BatchedGames:
    """Rows to explain of ``T`` models: ``f(x (T, R, M, V), rows (R,)) -> (T, R)``, rows naming the explained row.

    Attributes:
        function: the selected output of every model.
        inputs, baselines: ``(T, N, M, V)``.
        has_gradient: False for step functions.
    """

    function: Callable[[Tensor, Tensor], Tensor]
    inputs: Float[Tensor, "T N M *V"]
    baselines: Float[Tensor, "T N M *V"]
    has_gradient: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """T models, N rows, M players."""
        return self.inputs.shape[0], self.inputs.shape[1], self.inputs.shape[2]

    def worths(self, members: Bool[Tensor, "T N S M"]) -> Float[Tensor, "T N S"]:
        """``(T, N, S)``, f minus f(baseline), of the coalitions ``(T, N, S, M)``."""
        n_tasks, n_rows, _, n_players = members.shape
        start = self.function(self.baselines, torch.arange(n_rows))
        chunk = max(1, 200_000 // max(1, n_tasks * n_rows * n_players))
        parts = []
        for some in members.split(chunk, dim=2):
            x = torch.where(some.unsqueeze(-1), self.inputs.unsqueeze(2), self.baselines.unsqueeze(2))
            rows = torch.arange(n_rows).repeat_interleave(some.shape[2])
            parts.append(self.function(x.flatten(1, 2), rows).unflatten(1, (n_rows, -1)))
        return torch.cat(parts, dim=-1) - start.unsqueeze(-1)

    def along(self, points: Float[Tensor, " G"]) -> Float[Tensor, "T N G"]:
        """Values ``(T, N, G)`` at points ``(G,)`` of the path."""
        rows = torch.arange(self.inputs.shape[1])
        on_path = (self.baselines.lerp(self.inputs, point) for point in points.tolist())
        return torch.stack([self.function(x, rows) for x in on_path], dim=-1)

    def gradients(
        self, points: Float[Tensor, "*rows G"], each_number: bool = False
    ) -> tuple[Float[Tensor, "T N E G"], Float[Tensor, "T N G"]]:
        """Effects ``(T, N, M, G)`` (or ``(T, N, M * V, G)`` for each number) and values ``(T, N, G)`` along the path.

        The points are those of all rows, ``(G,)``, or of each, ``(T, N, G)``.
        """
        delta, rows = self.inputs - self.baselines, torch.arange(self.inputs.shape[1])
        effects, values = [], []
        for point in points.expand(*self.inputs.shape[:2], -1).unbind(-1):
            x = (self.baselines + point[..., None, None] * delta).requires_grad_(True)
            with torch.enable_grad():
                output = self.function(x, rows)
            gradient = torch.autograd.grad(output.sum(), x)[0] if self.has_gradient else torch.zeros_like(x)
            effect = gradient * delta
            effects.append(effect.flatten(2) if each_number else effect.sum(-1))
            values.append(output.detach())
        return torch.stack(effects, dim=-1), torch.stack(values, dim=-1)
