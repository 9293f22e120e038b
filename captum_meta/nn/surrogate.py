"""Small networks in place of the explained model: fitted to coalitions of some rows, they give the games of others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional

from captum_meta.games import SurrogateGame
from captum_meta.types import Record

SHARPNESS = 1.702
"""Of the activation x times the sigmoid of 1.702 x, which is nearly GELU and whose derivative is as cheap (Hendrycks and
Gimpel 2016)."""


@dataclass(frozen=True)
class Networks(Record):
    """Weights of F networks for each task, from M players of D elements over two layers of W units to H outputs.

    Attributes:
        enter: ``(*batch, F, M, D, W)``.
        enter_bias: ``(*batch, F, 1, W)``.
        inner: ``(*batch, F, W, W)``.
        inner_bias: ``(*batch, F, 1, W)``.
        leave: ``(*batch, F, W, H)``.
    """

    enter: Float[Tensor, "*batch F M D W"]
    enter_bias: Float[Tensor, "*batch F 1 W"]
    inner: Float[Tensor, "*batch F W W"]
    inner_bias: Float[Tensor, "*batch F 1 W"]
    leave: Float[Tensor, "*batch F W H"]


@dataclass(frozen=True)
class Committee:
    """Networks with two hidden layers, averaged with weights of each row's own.

    Attributes:
        weights: of the members.
        votes: ``(*batch, F, N)``, weights of the members for each row.
        heads: ``(*batch, N)`` int64, indices of the networks' outputs.
        unit: ``(*batch,)``, of their answers.
    """

    weights: Networks
    votes: Float[Tensor, "*batch F N"]
    heads: Int64[Tensor, "*batch N"]
    unit: Float[Tensor, "*#batch"]

    def game(self, inputs: Float[Tensor, "*batch N M D"], baselines: Float[Tensor, "*batch N M D"]) -> SurrogateGame:
        """The game of rows whose players' elements are ``(*batch, N, M, D)``."""
        start, gains = entering(self.weights, inputs, baselines)
        leave = leaving(self.weights, self.heads) * self.votes[..., None, None] * self.unit[..., None, None, None, None]
        width = start.shape[-1]
        members = list(
            zip(
                (SHARPNESS * start).unbind(-3),
                (SHARPNESS * gains).split(width, dim=-1),
                self.weights.inner.unbind(-3),
                (SHARPNESS * self.weights.inner_bias).unbind(-3),
                (leave / SHARPNESS).unbind(-4),
                strict=True,
            )
        )

        def function(memberships: Tensor) -> Tensor:
            # SHARPNESS times the sums into each layer: the activation is then SiLU, one kernel, over SHARPNESS.
            answers = []
            for begin, by_player, inner, bias, outward in members:
                first = functional.silu((memberships @ by_player).add_(begin.unsqueeze(-2))).flatten(-3, -2)
                second = functional.silu((first @ inner).add_(bias)).unflatten(-2, memberships.shape[-3:-1])
                answers.append(torch.linalg.vecdot(second, outward.mT))  # a product of matrices takes twice as long
            return torch.stack(answers).sum(0)

        def derivative(memberships: Tensor) -> tuple[Tensor, Tensor]:
            shape, found = memberships.shape[-3:-1], []
            for begin, by_player, inner, bias, outward in members:
                first, of_first = _bent(memberships @ by_player + begin.unsqueeze(-2))
                second, of_second = _bent((first.flatten(-3, -2) @ inner + bias).unflatten(-2, shape))
                back = ((outward.mT * of_second).flatten(-3, -2) @ inner.mT).unflatten(-2, shape) * of_first
                found.append((back @ by_player.mT, (second @ outward).squeeze(-1)))
            gradients, values = (torch.stack(each).sum(0) for each in zip(*found, strict=True))
            return gradients, values

        return SurrogateGame(function, inputs[..., 0], derivative)


def _bent(x: Tensor) -> tuple[Tensor, Tensor]:
    """SiLU and its derivative."""
    gate = x.sigmoid()
    return x * gate, gate * (1 + x * (1 - gate))


def entering(weights: Networks, inputs: Tensor, baselines: Tensor) -> tuple[Tensor, Tensor]:
    """Sums into the first layer: at baselines ``(*batch, F, N, W)``, and what players add ``(*batch, N, M, F * W)``."""
    enter = weights.enter
    start = baselines.flatten(-2).unsqueeze(-3) @ enter.flatten(-3, -2) + weights.enter_bias
    by_player = enter.movedim(-4, -2).flatten(-2)
    return start, ((inputs - baselines).transpose(-3, -2) @ by_player).transpose(-3, -2)


def leaving(weights: Networks, heads: Tensor) -> Tensor:
    """Weights of each row's output, ``(*batch, F, N, W, 1)``."""
    leave = weights.leave.mT
    index = heads[..., None, :, None].expand(*leave.shape[:-2], heads.shape[-1], leave.shape[-1])
    return leave.gather(-2, index).unsqueeze(-1)
