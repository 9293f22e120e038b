"""Random numbers that are a function of a key, so that a row draws the same ones in any batch and at any time."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

GOLDEN = -7046029254386353131  # 0x9E3779B97F4A7C15
_MIX_1 = -4658895280553007687  # 0xBF58476D1CE4E5B9
_MIX_2 = -7723592293110705685  # 0x94D049BB133111EB


def shift_right(numbers: Tensor, bits: int) -> Tensor:
    return (numbers >> bits) & ((1 << (64 - bits)) - 1)


def mix(numbers: Int64[Tensor, "*shape"]) -> Int64[Tensor, "*shape"]:
    """The SplitMix64 finaliser (Steele, Lea and Flood 2014) of int64 numbers; neighbours become unrelated."""
    numbers = (numbers ^ shift_right(numbers, 30)) * _MIX_1
    numbers = (numbers ^ shift_right(numbers, 27)) * _MIX_2
    return numbers ^ shift_right(numbers, 31)


def counters(count: int, device: torch.device) -> Int64[Tensor, " count"]:
    """Multiples of an odd number, ``(count,)``: one for each draw of a stream."""
    return torch.arange(1, count + 1, device=device) * GOLDEN


def row_keys(inputs: tuple[Tensor, ...]) -> Int64[Tensor, " B"]:
    """One int64 for each row, a hash of its values: equal rows have equal keys in any batch, ``(B,)``."""
    bits = torch.cat([_bits(part.detach()).reshape(len(part), -1) for part in inputs], 1)
    return mix(mix(bits + counters(bits.shape[1], bits.device)).sum(1))


def coalition_keys(members: Bool[Tensor, "*batch M"]) -> Int64[Tensor, "*batch"]:
    """One int64 for each coalition ``(..., M)`` bool, equal for equal ones."""
    return mix(members.long() * counters(members.shape[-1], members.device)).sum(-1)


def _bits(part: Tensor) -> Tensor:
    if part.dtype == torch.float64:
        return part.contiguous().view(torch.int64)
    return part.float().contiguous().view(torch.int32).long() if part.is_floating_point() else part.long()


def uniform(keys: Int64[Tensor, " N"], shape: tuple[int, ...], seed: int) -> Float[Tensor, " N *shape"]:
    """Uniform float64 numbers in [0, 1), ``(N, *shape)``, that depend on ``keys`` ``(N,)`` int64 and ``seed`` only.

    >>> one = uniform(torch.tensor([7]), (3,), seed=0)
    >>> two = uniform(torch.tensor([5, 7]), (3,), seed=0)
    >>> torch.equal(one[0], two[1])
    True
    """
    count = torch.Size(shape).numel()
    streams = mix(keys ^ mix(torch.full_like(keys, seed + 1) * GOLDEN))
    numbers = mix(streams.unsqueeze(-1) + counters(count, keys.device))
    return (shift_right(numbers, 11).double() / 2**53).reshape(len(keys), *shape)
