"""Random numbers as a function of a seed and the row's own content.

A generator would tie a row's draws to its place in the batch: the same rows in other batches would score otherwise.
"""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15


def _shift_right(numbers: Tensor, bits: int) -> Tensor:
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def _mix(numbers: Tensor) -> Tensor:
    """The SplitMix64 finaliser (Steele, Lea and Flood 2014)."""
    numbers = (numbers ^ _shift_right(numbers, 30)) * -4658895280553007687
    numbers = (numbers ^ _shift_right(numbers, 27)) * -7723592293110705685
    return numbers ^ _shift_right(numbers, 31)


def _counters(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * _GOLDEN


def _bits(part: Tensor) -> Tensor:
    if part.dtype == torch.float64:
        return part.contiguous().view(torch.int64)
    return part.float().contiguous().view(torch.int32).long() if part.is_floating_point() else part.long()


def row_keys(inputs: tuple[Tensor, ...], seed: int) -> Tensor:
    """A number for each row, ``(B,)`` int64, that depends on the row's values and ``seed`` only."""
    bits = torch.cat([_bits(part.detach()).reshape(len(part), -1) for part in inputs], 1)
    return _mix(_mix(bits + _counters(bits.shape[1], bits.device)).sum(1) + seed * _GOLDEN)


def uniform(keys: Tensor, steps: Tensor, count: int) -> Tensor:
    """Float32 numbers in [0, 1), ``(N, count)``, for the N pairs of a row's key and a step.

    >>> keys = torch.tensor([5, 7])
    >>> torch.equal(uniform(keys, torch.tensor([3, 3]), 4)[1:], uniform(keys[1:], torch.tensor([3]), 4))
    True
    """
    streams = _mix(keys + (steps + 1) * _GOLDEN)
    numbers = _mix(streams.unsqueeze(1) + _counters(count, keys.device))
    return _shift_right(numbers, 40).float() / 2**24
