"""The effects of each player in the coalitions of one player and of all but one, and which players are dummies."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT

_ROUNDING, _OF_OUTPUT = 8, 1
"""Two evaluations of the same input differ by rounding, as a batch's rows are not rounded alike: by so many units in the
last place of the row's largest effect, and of its output, which may be far larger."""


_STEEPEST = 20
"""Gradients beyond this many times the span of f's known values hold at a spot only."""


def rounding(ends: Num[Tensor, "N 2 K"], changes: Float[Tensor, "N C K"]) -> Float[Tensor, "N K"]:
    """Largest change of f that may be rounding alone, ``(N, K)``.

    Args:
        ends: ``(N, 2, K)``, f of the baseline and of the input.
        changes: ``(N, C, K)``, changes of f that were measured; 0 where one was not.
    """
    unit = torch.finfo(ends.dtype).eps
    largest = changes.abs().amax(1) if changes.shape[1] else 0.0
    return unit * (_OF_OUTPUT * ends.abs().amax(1) + _ROUNDING * largest)


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


def drop_spots(
    channels: Float[Tensor, "N M 5 K"],
    known: Bool[Tensor, "N M 5 K"],
    mask: Bool[Tensor, "N M"],
    total: Float[Tensor, "N K"],
    curve: Float[Tensor, "N P K"],
) -> None:
    """Gradients far beyond all changes of f count as not measured, where the border shows an effect of all players that act.

    So it is at a cusp, such as that of a norm at a baseline of 0, and of fast oscillations.
    """
    present, border = mask[..., None, None], channels[:, :, LEAVE_ONE_OUT:]
    gradients = channels[:, :, :LEAVE_ONE_OUT].masked_fill(~present, 0.0)
    told = (known[:, :, LEAVE_ONE_OUT:].all(2) & (border != 0).any(2)) | ~mask.unsqueeze(-1) | (gradients == 0).all(2)
    without = (total.unsqueeze(1) - channels[:, :, LEAVE_ONE_OUT]).masked_fill(~mask.unsqueeze(-1), 0.0)
    alone = channels[:, :, ADD_ONE_IN].masked_fill(~mask.unsqueeze(-1), 0.0)
    worths = torch.cat([alone, without, total.unsqueeze(1), curve], dim=1).nan_to_num(0.0, 0.0, 0.0)
    span = worths.amax(1).clamp(min=0) - worths.amin(1).clamp(max=0)
    spots = (gradients.abs().amax(1) > _STEEPEST * span.unsqueeze(1)) & (told.all(1) & (span > 0)).unsqueeze(1)
    known[:, :, :LEAVE_ONE_OUT] &= ~spots.unsqueeze(1)
    channels[:, :, :LEAVE_ONE_OUT].masked_fill_(spots.unsqueeze(1), 0.0)
