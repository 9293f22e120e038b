"""Random numbers as a function of a seed and the row's own content.

A generator would tie a row's draws to its place in the batch: the same rows in other batches would score otherwise.
"""

from __future__ import annotations

from jaxtyping import Float, Int64
from torch import Tensor

from captum_meta import _random
from captum_meta._random import GOLDEN, counters, mix, shift_right


def row_keys(inputs: tuple[Tensor, ...], seed: int) -> Int64[Tensor, " B"]:
    """A number for each row, ``(B,)`` int64, that depends on the row's values and ``seed`` only."""
    return mix(_random.row_keys(inputs) + seed * GOLDEN)


def uniform(keys: Int64[Tensor, " N"], steps: Int64[Tensor, " N"], count: int) -> Float[Tensor, "N count"]:
    """Float32 numbers in [0, 1), ``(N, count)``, for the N pairs of a row's key and a step.

    >>> import torch
    >>> keys = torch.tensor([5, 7])
    >>> torch.equal(uniform(keys, torch.tensor([3, 3]), 4)[1:], uniform(keys[1:], torch.tensor([3]), 4))
    True
    """
    streams = mix(keys + (steps + 1) * GOLDEN)
    numbers = mix(streams.unsqueeze(1) + counters(count, keys.device))
    return shift_right(numbers, 40).float() / 2**24
