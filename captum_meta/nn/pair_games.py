"""Shapley values of games that are sums of functions of pairs of players, and how near a game is to one."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT, Evidence

_EVEN = 1e-3
"""Squared distance from such a game, relative to the effects, at which half of the answer is that of pairs."""


def from_pairs(
    effects: Float[Tensor, "*batch M C"],
    measured: Bool[Tensor, "*batch M C"],
    evidence: Evidence,
    total: Float[Tensor, "*batch"],
) -> tuple[Float[Tensor, "*batch M"], Float[Tensor, "*batch 1"]]:
    """Attributions that are exact where f is a sum of functions of pairs, and the distance of f from one, from 0 to 1.

    Such an f has gradients that change evenly along the path, of which the one halfway is exact. Of the border the mean of
    leave-one-out and add-one-in is exact; it sums to the change of f, and where the two are alike f is a sum over players,
    whatever its gradients are.
    """
    unit = effects.abs().amax((-2, -1)).clamp(min=_tiny(effects))  # squares of small effects would vanish
    effects, total = effects / unit[..., None, None], total / unit
    begin, middle, end, without, alone = effects[..., : ADD_ONE_IN + 1].unbind(-1)
    seen = measured | ~evidence.players.unsqueeze(-1)
    told = seen[..., LEAVE_ONE_OUT:].all(-1)
    sloped = (seen[..., :LEAVE_ONE_OUT].all(-1) | (told & (effects == 0).all(-1))).all(-1)
    bend = torch.where(sloped, _relative(middle - (begin + end) / 2, begin, end), 1.0)
    mean = (without + alone) / 2
    missed = (total - mean.sum(-1)).square() / (without.square() + alone.square()).sum(-1).clamp(min=_tiny(total))
    apart = torch.minimum(bend, _relative(without - alone, without, alone)) + missed
    border = told.all(-1)
    apart = torch.where(border, apart, torch.where(measured[..., LEAVE_ONE_OUT:].flatten(-2).any(-1), 1.0, bend))
    share = torch.where(apart < 1, apart / (apart + _EVEN), 1.0)
    return torch.where(border.unsqueeze(-1), mean, middle) * unit.unsqueeze(-1), share.unsqueeze(-1)


def _relative(
    difference: Float[Tensor, "*batch M"], one: Float[Tensor, "*batch M"], two: Float[Tensor, "*batch M"]
) -> Float[Tensor, "*batch"]:
    """Squares of the difference next to those of the two, ``(*batch,)``."""
    return difference.square().sum(-1) / (one.square() + two.square()).sum(-1).clamp(min=_tiny(one))


def _tiny(tensor: Tensor) -> float:
    return torch.finfo(tensor.dtype).tiny
