"""Whether rows have the same values in other batches, and the sizes of these."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from captum_meta.games.attempts import Place
from captum_meta.games.batch import Batch
from captum_meta.games.players import Tensors

ALIKE, _ROUNDING = 1e-3, 2
"""Values differ if by more than this part of the largest change of f, and this many units of their precision."""


def alike(values: Tensor, own: Tensor, rows: Tensor, nobody: Tensor, precision: float) -> bool:
    """Whether f of the ``rows (R,)``, ``values (R, K)``, equals f in the caller's batch, ``own (B, K)``.

    f of a baseline is ``nobody (1, K)``.
    """
    change = (own - nobody).nan_to_num(0.0, 0.0, 0.0).abs().amax()
    own = own[rows]
    size = own.nan_to_num(0.0, 0.0, 0.0).abs().amax()
    close = (values - own).abs() <= ALIKE * change + _ROUNDING * precision * size
    return bool(close.all()) or bool((close | (values == own) | (values.isnan() & own.isnan())).all())


def in_company(batch: Batch, place: Place, rows: Tensor, further: int) -> Iterator[tuple[Tensors, Tensor]]:
    """The ``rows (R,)`` at the first turn, all rows at so many ``further`` turns, and a baseline, in two batches or more."""
    sizes = sizes_of_companies(len(rows), len(batch))
    left, turns = batch.everyone.repeat_interleave(further), torch.arange(1, further + 1, device=batch.device)
    sizes[-1] += len(left)
    asked = torch.cat([rows, left])
    placed = zip(place(asked, torch.cat([0 * rows, turns.repeat(len(batch))])), batch.baselines, strict=True)
    parts = [torch.cat([part, b[rows[:1]]]) for part, b in placed]
    for *x, some in zip(*(part.split(sizes) for part in (*parts, torch.cat([asked, rows[:1]]))), strict=True):
        yield tuple(x), some


def sizes_of_companies(count: int, n_examples: int) -> list[int]:
    """Sizes of batches for ``count`` rows and a baseline; not the caller's, as some models take only batches of its size."""
    sizes = [count + 1] if n_examples == 1 else [count - count // 2, count // 2 + 1]
    return [1] * (count + 1) if n_examples in sizes else sizes
