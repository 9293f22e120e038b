"""Sums of entries of tables, one for each player, at the values that the players have."""

from __future__ import annotations

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor


def sum_at_seats(
    table: Float[Tensor, "R M L L"], first: Int64[Tensor, "R A M"], second: Int64[Tensor, "R B M"]
) -> Float[Tensor, "R A B"]:
    r"""For every two points the sum of the players' table entries at their values there; differentiable once.

    .. math:: s_{ab} = \sum_i T_i[p_{ai}, q_{bi}]

    Args:
        table: T, ``(R, M, L, L)``.
        first, second: p and q, ``(R, A, M)`` and ``(R, B, M)`` int64.

    Returns:
        ``(R, A, B)``.

    >>> table = torch.arange(4.0).reshape(1, 1, 2, 2)
    >>> sum_at_seats(table, torch.tensor([[[0], [1]]]), torch.tensor([[[1]]]))
    tensor([[[1.],
             [3.]]])
    """
    return torch.stack([_SumOfRow.apply(*row) for row in zip(table, first, second, strict=True)])


class _SumOfRow(torch.autograd.Function):
    """Whole lines of a table are copied and added at a time: faster than single entries of all rows."""

    @staticmethod
    def forward(ctx: Any, table: Tensor, first: Tensor, second: Tensor) -> Tensor:
        ctx.save_for_backward(first, second)
        ctx.values = table.shape[1]
        total = table.new_zeros(len(first), len(second))
        for of_player, one, other in zip(table, first.mT, second.mT, strict=True):
            total += of_player.index_select(1, other).index_select(0, one)
        return total

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        first, second = ctx.saved_tensors
        gradient, found = gradient.contiguous(), gradient.new_zeros(first.shape[1], ctx.values, ctx.values)
        for of_player, one, other in zip(found, first.mT, second.mT, strict=True):
            lines = gradient.new_zeros(ctx.values, gradient.shape[1]).index_add_(0, one, gradient)
            of_player.index_add_(1, other, lines)
        return found, None, None
