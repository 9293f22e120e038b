"""The effects of each player in the coalitions of one player and of all but one, and which players are dummies."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT

_ROUNDING, _OF_OUTPUT = 8, 1
"""Two evaluations of the same input differ by rounding, as a batch's rows are not rounded alike: by so many units in the
last place of the row's largest effect, and of its output, which may be far larger."""


def rounding(ends: Num[Tensor, "N 2 K"], changes: Float[Tensor, "N C K"]) -> Float[Tensor, "N K"]:
    """Changes of f that may be rounding alone, ``(N, K)``.

    Args:
        ends: ``(N, 2, K)``, f of the baseline and of the input.
        changes: ``(N, C, K)``, changes of f that were measured; 0 where one was not.
    """
    unit = torch.finfo(ends.dtype).eps
    return unit * (_OF_OUTPUT * ends.abs().amax(1) + _ROUNDING * changes.abs().amax(1))


def read_border(
    channels: Float[Tensor, "N M 5 K"],
    known: Bool[Tensor, "N M 5 K"],
    members: Bool[Tensor, "N S M"],
    worths: Float[Tensor, "N S K"],
    measured: Bool[Tensor, "N S K"],
    mask: Bool[Tensor, "N M"],
    total: Float[Tensor, "N K"],
) -> None:
    """Fill leave-one-out and add-one-in into ``channels`` and ``known``.

    Shapes: ``channels``, ``known`` ``(N, M, 5, K)``; ``members (N, S, M)``; ``worths``, ``measured (N, S, K)``;
    ``mask (N, M)``; ``total (N, K)``.
    """
    absent = mask.unsqueeze(1) & ~members
    for channel, single, value in ((ADD_ONE_IN, members, worths), (LEAVE_ONE_OUT, absent, total.unsqueeze(1) - worths)):
        rows, coalitions = (single.sum(-1) == 1).nonzero(as_tuple=True)
        players = single[rows, coalitions].to(torch.uint8).argmax(-1)
        seen = measured[rows, coalitions]
        channels[rows, players, channel] = torch.where(seen, value[rows, coalitions], channels[rows, players, channel])
        known[rows, players, channel] |= seen
