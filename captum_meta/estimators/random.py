"""Random numbers that are a function of a key, so that a row draws the same ones in any batch and at any time."""

from __future__ import annotations

import torch
from torch import Tensor

_GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def _shift_right(numbers: Tensor, bits: int) -> Tensor:
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def mix(numbers: Tensor) -> Tensor:
    """The SplitMix64 finaliser (Steele, Lea and Flood 2014) of int64 numbers; neighbours become unrelated."""
    numbers = (numbers ^ _shift_right(numbers, 30)) * _MIX_1
    numbers = (numbers ^ _shift_right(numbers, 27)) * _MIX_2
    return numbers ^ _shift_right(numbers, 31)


def uniform(keys: Tensor, shape: tuple[int, ...], seed: int) -> Tensor:
    """Uniform float64 numbers in [0, 1), ``(N, *shape)``, that depend on ``keys`` ``(N,)`` int64 and ``seed`` only.

    >>> one = uniform(torch.tensor([7]), (3,), seed=0)
    >>> two = uniform(torch.tensor([5, 7]), (3,), seed=0)
    >>> torch.equal(one[0], two[1])
    True
    """
    count = torch.Size(shape).numel()
    counters = torch.arange(1, count + 1, device=keys.device) * _GOLDEN
    streams = mix(keys ^ mix(torch.full_like(keys, seed + 1) * _GOLDEN))
    numbers = mix(streams.unsqueeze(-1) + counters)
    return (_shift_right(numbers, 11).double() / 2**53).reshape(len(keys), *shape)
