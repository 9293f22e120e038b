"""Units that are powers of two: numbers in them keep all their digits, and their squares neither overflow nor vanish."""

from __future__ import annotations

import torch
from torch import Tensor


def power_of_two(values: Tensor) -> Tensor:
    """The largest power of two up to the largest finite number of each row ``(N, K)``, within the range of the dtype.

    1 where there is no number but 0.

    >>> power_of_two(torch.tensor([[3.0, -5.0], [0.0, 0.3], [0.0, 0.0]])).tolist()
    [4.0, 0.25, 1.0]
    """
    size = values.abs().amax(1)
    if not bool(size.isfinite().all()):
        size = torch.where(values.isfinite(), values.abs(), 0.0).amax(1)
    furthest = 1000 if values.dtype == torch.float64 else 100
    exponent = torch.where(size > 0, size.frexp().exponent - 1, 0).clamp(-furthest, furthest)
    return torch.ldexp(torch.ones_like(size), exponent)
