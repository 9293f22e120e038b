"""Ranks and correlations within rows, where some players are padding."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor


def descending_ranks(values: Float[Tensor, "B M"], present: Bool[Tensor, "B M"]) -> Int64[Tensor, "B M"]:
    """``(B, M)`` int64: 0 for a row's greatest value; ties in the players' order, padding last."""
    order = values.masked_fill(~present, -torch.inf).argsort(dim=1, descending=True, stable=True)
    ranks = torch.arange(values.shape[1], device=values.device).expand_as(order)
    return torch.empty_like(order).scatter(1, order, ranks)


def average_ranks(values: Float[Tensor, "B M"], present: Bool[Tensor, "B M"]) -> Float[Tensor, "B M"]:
    """``(B, M)``: 0 for a row's smallest value; ties get the mean of their places, padding comes last."""
    ordered, order = values.masked_fill(~present, torch.inf).sort(1)
    fresh = torch.zeros_like(order)
    fresh[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    tie = fresh.cumsum(1)
    ranks = torch.arange(values.shape[1], device=values.device, dtype=values.dtype).expand_as(values)
    mean_ranks = torch.zeros_like(values).scatter_reduce(1, tie, ranks, "mean", include_self=False)
    return torch.empty_like(values).scatter(1, order, mean_ranks.gather(1, tie))


def correlation(
    first: Float[Tensor, "B M"], second: Float[Tensor, "B M"], present: Bool[Tensor, "B M"]
) -> Float[Tensor, " B"]:
    """Pearson's correlation of each row, ``(B,)``; 0 where either side is constant."""
    first, first_constant = _centre(first, present)
    second, second_constant = _centre(second, present)
    product = (first * second).sum(1)
    size = first.square().sum(1).sqrt() * second.square().sum(1).sqrt()
    ratio = (product / size.masked_fill(size == 0, 1)).clamp(-1, 1)
    return ratio.masked_fill(first_constant | second_constant, 0)


def _centre(values: Float[Tensor, "B M"], present: Bool[Tensor, "B M"]) -> tuple[Float[Tensor, "B M"], Bool[Tensor, " B"]]:
    values = values * present
    scale = values.abs().amax(1)
    values = values / scale.masked_fill(scale == 0, 1).unsqueeze(1)
    centred = (values - (values.sum(1) / present.sum(1)).unsqueeze(1)) * present
    return centred, centred.abs().amax(1) <= 8 * torch.finfo(values.dtype).eps
