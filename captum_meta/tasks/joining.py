"""Tasks with different numbers of players, in one batch."""

from __future__ import annotations

from collections.abc import Sequence

from captum_meta.evidence import pad_coalitions, pad_players
from captum_meta.types import Explanations


def join(batches: Sequence[Explanations]) -> Explanations:
    """One batch ``(T_1 + T_2 + ..., N, M)`` from batches ``(T_i, N, M_i)``: padded to the most players and coalitions.

    Coalitions are lost only where no batch has any.

    Raises:
        ValueError: if the numbers of rows differ.
    """
    if len(batches) == 1:
        return batches[0]
    rows = {len(batch) for batch in batches}
    if len(rows) > 1:
        raise ValueError(f"Tasks of {sorted(rows)} rows cannot be joined: make families with equal rows=.")
    width = max(batch.attributions.shape[-1] for batch in batches)
    return Explanations.concatenate(pad_coalitions([pad_players(batch, width) for batch in batches]))
