"""Rows of different models side by side: padded to equal numbers of players, of elements and of coalitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from captum_meta.types import Coalitions, Evidence, Explanations

_PADDED = ("M", "S", "D")


def joined(parts: Sequence[Explanations]) -> Explanations:
    """All rows as one, with as many players, elements and coalitions as the largest has; what is added is not measured.

    Of rows without coalitions beside others with them none is measured.
    """
    gradients = any(some is not None and some.gradients is not None for some in (part.evidence.coalitions for part in parts))
    if any(part.evidence.coalitions is not None for part in parts):
        parts = [replace(part, evidence=_with_coalitions(part.evidence, gradients)) for part in parts]
    sizes: dict[str, int] = {}
    for part in parts:
        for name, size in part.sizes().items():
            sizes[name] = max(size, sizes.get(name, 0))
    most = {name: size for name, size in sizes.items() if name in _PADDED}
    return Explanations.concatenate([part.padded(**most) for part in parts])


def _with_coalitions(evidence: Evidence, gradients: bool) -> Evidence:
    """Evidence as it is, or with coalitions of which there are none."""
    if evidence.coalitions is not None:
        return evidence
    nothing, players = evidence.total.new_zeros(*evidence.total.shape, 0), evidence.players.unsqueeze(-2)[..., :0, :]
    none = players.unsqueeze(-1).to(nothing) if gradients else None
    return replace(evidence, coalitions=Coalitions(players, nothing, nothing.bool(), none))
