"""Tasks with different numbers of players, in one batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn.functional import pad

from captum_meta.evidence import pad_players
from captum_meta.types import Coalitions, Explanations


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
    padded = [_padded(batch, width) for batch in batches]
    measured = [batch.evidence.coalitions for batch in padded]
    longest = max((some.members.shape[-2] for some in measured if some is not None), default=0)
    if longest:
        padded = [
            replace(batch, evidence=replace(batch.evidence, coalitions=_lengthened(some, longest, batch)))
            for batch, some in zip(padded, measured, strict=True)
        ]
    return Explanations.concatenate(padded)


def _padded(batch: Explanations, width: int) -> Explanations:
    wide = pad_players(batch, width)
    assert isinstance(wide, Explanations)
    return wide


def _lengthened(coalitions: Coalitions | None, length: int, batch: Explanations) -> Coalitions:
    if coalitions is None:
        coalitions = _none(batch)
    missing = length - coalitions.members.shape[-2]

    def longer(tensor: Tensor) -> Tensor:
        return pad(tensor, (0, missing))

    return Coalitions(pad(coalitions.members, (0, 0, 0, missing)), longer(coalitions.worths), longer(coalitions.measured))


def _none(batch: Explanations) -> Coalitions:
    total, players = batch.evidence.total, batch.evidence.players
    nothing = total.new_zeros(*total.shape, 0)
    members = torch.zeros(*total.shape, 0, players.shape[-1], dtype=torch.bool, device=total.device)
    return Coalitions(members, nothing, nothing.bool())
