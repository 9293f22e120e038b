"""Rows of different models side by side: padded to equal numbers of players and of coalitions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from torch import Tensor, nn

from captum_meta.types import Coalitions, Evidence, Explanations


def pad_players(explanations: Explanations, count: int) -> Explanations:
    """Explanations with the players' dimension padded to ``count``."""
    missing = count - explanations.attributions.shape[-1]

    def pad(tensor: Tensor, behind: int = 0) -> Tensor:
        return nn.functional.pad(tensor, (0, 0) * behind + (0, missing))

    evidence, variance = explanations.evidence, explanations.variance
    coalitions, inputs, elements = evidence.coalitions, evidence.inputs, evidence.elements
    evidence = replace(
        evidence,
        effects=pad(evidence.effects, 1),
        measured=pad(evidence.measured, 1),
        players=pad(evidence.players),
        coalitions=coalitions and _widened(coalitions, missing),
        inputs=None if inputs is None else pad(inputs, 1),
        elements=None if elements is None else pad(elements, 2),
    )
    variance = None if variance is None else pad(variance)
    return replace(explanations, evidence=evidence, attributions=pad(explanations.attributions), variance=variance)


def pad_coalitions(parts: Sequence[Explanations]) -> list[Explanations]:
    """Explanations with as many coalitions each as the largest has, if any has some; those added count as not measured."""
    known = [part.evidence.coalitions or _no_coalitions(part.evidence) for part in parts]
    longest = max((some.members.shape[-2] for some in known), default=0)
    if not longest:
        return list(parts)
    return [
        replace(part, evidence=replace(part.evidence, coalitions=_lengthened(some, longest)))
        for part, some in zip(parts, known, strict=True)
    ]


def pad_elements(parts: Sequence[Explanations]) -> list[Explanations]:
    """Explanations whose players have as many elements each as the largest has."""
    known = [part.evidence.elements for part in parts]
    most = max((elements.shape[-2] for elements in known if elements is not None), default=0)
    return [
        part if elements is None else _fuller(part, most - elements.shape[-2])
        for part, elements in zip(parts, known, strict=True)
    ]


def _fuller(part: Explanations, missing: int) -> Explanations:
    evidence = part.evidence
    assert evidence.elements is not None
    elements, coalitions = nn.functional.pad(evidence.elements, (0, 0, 0, missing)), evidence.coalitions
    if coalitions is not None and coalitions.slopes is not None:
        coalitions = replace(coalitions, slopes=nn.functional.pad(coalitions.slopes, (0, missing)))
    return replace(part, evidence=replace(evidence, elements=elements, coalitions=coalitions))


def _widened(coalitions: Coalitions, missing: int) -> Coalitions:
    slopes = None if coalitions.slopes is None else nn.functional.pad(coalitions.slopes, (0, 0, 0, missing))
    return replace(coalitions, members=nn.functional.pad(coalitions.members, (0, missing)), slopes=slopes)


def _lengthened(coalitions: Coalitions, length: int) -> Coalitions:
    missing = length - coalitions.members.shape[-2]
    pad = nn.functional.pad
    worths, measured = (pad(tensor, (0, missing)) for tensor in (coalitions.worths, coalitions.measured))
    slopes = None if coalitions.slopes is None else pad(coalitions.slopes, (0, 0, 0, 0, 0, missing))
    return Coalitions(pad(coalitions.members, (0, 0, 0, missing)), worths, measured, slopes)


def _no_coalitions(evidence: Evidence) -> Coalitions:
    nothing = evidence.total.new_zeros(*evidence.total.shape, 0)
    return Coalitions(evidence.players.unsqueeze(-2)[..., :0, :], nothing, nothing.bool())
