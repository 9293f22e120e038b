"""Networks over sets of players at linear cost: every player reads a few weighted means over all of them."""

from __future__ import annotations

from inspect import signature

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional


class Described:
    """Can be rebuilt, with fresh weights, from its constructor's arguments, kept as attributes of the same names."""

    def arguments(self) -> dict[str, object]:
        """Constructor arguments, as JSON can hold them."""
        return {name: getattr(self, name) for name in signature(type(self)).parameters if hasattr(self, name)}


def draw_normal(weight: Tensor, std: float) -> None:
    """Draw the weight anew, normal with mean 0, from the CPU's stream, so that a meta tensor needs no compiler for it."""
    drawn = torch.empty(weight.shape, dtype=weight.dtype, device="cpu").normal_(std=std)
    weight.detach().copy_(drawn)


def masked_mean(values: Tensor, mask: Tensor, dim: int = -1) -> Tensor:
    """Mean of ``values`` where ``mask``, 0 where nothing is; NaN outside the mask does not enter."""
    kept = torch.where(mask, values, 0.0)
    return kept.sum(dim) / mask.expand_as(values).sum(dim).clamp(min=1)


def asinh(values: Tensor) -> Tensor:
    """The inverse hyperbolic sine, as exact as torch's own, which is not vectorised and takes six times as long."""
    size = values.abs()
    return torch.log1p(size + size * (size / (1 + torch.hypot(size, torch.ones_like(size))))).copysign(values)


def player_sizes(
    effects: Float[Tensor, "*batch M C"],
    measured: Bool[Tensor, "*batch M C"],
    players: Bool[Tensor, "*batch M"],
    unit: Float[Tensor, "*batch"],
) -> Float[Tensor, "*batch M"]:
    """Mean absolute measured effect of each player, ``(*batch, M)``.

    A player that was not measured is given the mean of the others, or ``unit (*batch,)`` where no other has an effect.

    Shapes: ``effects``, ``measured`` ``(*batch, M, C)``, ``players (*batch, M)`` bool.
    """
    known = measured & players.unsqueeze(-1)
    sizes, seen = masked_mean(effects.abs(), known), known.any(-1)
    usual = masked_mean(sizes, seen)
    usual = torch.where(usual > 0, usual, unit).unsqueeze(-1)
    return torch.where(players & ~seen, usual, sizes)


class PoolingBlock(nn.Module):
    """Residual block over the second-last dimension: attention pooling with learned queries, then an MLP.

    Induced set attention (Lee et al. 2019) with the queries' side cut short: ``heads`` softmax-weighted means of the
    players are handed back to each player. What a mean is projected to is the mean of what the players would be, so that
    the values are made of the few means.

    Shapes: ``hidden (*batch, M, width)``, ``mask (*batch, M)`` bool, or None where all take part -> ``(*batch, M, width)``.
    """

    batched_by_hand = True

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.scores = nn.Linear(width, heads)
        self.values = nn.Linear(width, width)
        self.mix = nn.Sequential(nn.Linear(2 * width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        self.heads = heads

    def forward(
        self, hidden: Float[Tensor, "*batch M W"], mask: Bool[Tensor, "*#batch M"] | None = None
    ) -> Float[Tensor, "*batch M W"]:
        first, _, last = self.mix
        normed = functional.layer_norm(hidden, self.norm.normalized_shape, self.norm.weight, self.norm.bias, self.norm.eps)
        scores = _linear(self.scores, normed)
        if mask is not None:
            scores = scores.masked_fill(~mask.unsqueeze(-1), -1e9)
        pooled = self._pooled(scores.softmax(-2), normed)
        return _linear(last, functional.gelu(linear_of_parts(first, normed, pooled))).add_(hidden)

    def _pooled(self, weights: Tensor, normed: Tensor) -> Tensor:
        """The values' weighted means, each for a part of the width, ``(*batch, width)``; made of what is fewer."""
        if normed.shape[-2] < self.heads:
            values = _linear(self.values, normed).unflatten(-1, (self.heads, -1))
            return (values * weights.unsqueeze(-1)).sum(-3).flatten(-2)
        values = _linear(self.values, weights.mT @ normed).unflatten(-1, (self.heads, -1))
        return values.diagonal(dim1=-3, dim2=-2).mT.flatten(-2)


def _linear(layer: nn.Module, values: Tensor) -> Tensor:
    """The layer without the overhead of a module's call, which takes as long as a small product."""
    assert isinstance(layer, nn.Linear)
    return functional.linear(values, layer.weight, layer.bias)


def linear_of_parts(
    layer: nn.Module, players: Float[Tensor, "*batch M A"], rows: Float[Tensor, "*batch B"]
) -> Float[Tensor, "*batch M W"]:
    """``layer`` of the players' values followed by those of their row, which are multiplied once.

    Shapes: ``players (*batch, M, A)``, ``rows (*batch, B)``, ``layer`` of A + B inputs -> ``(*batch, M, outputs)``.
    """
    assert isinstance(layer, nn.Linear)
    of_players, of_rows = layer.weight.split([players.shape[-1], rows.shape[-1]], dim=-1)
    return functional.linear(players, of_players, layer.bias).add_(functional.linear(rows, of_rows).unsqueeze(-2))
