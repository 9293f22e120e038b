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
    coalitions, inputs = evidence.coalitions, evidence.inputs
    evidence = replace(
        evidence,
        effects=pad(evidence.effects, 1),
        measured=pad(evidence.measured, 1),
        players=pad(evidence.players),
        coalitions=coalitions and replace(coalitions, members=pad(coalitions.members)),
        inputs=None if inputs is None else pad(inputs, 1),
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


def _lengthened(coalitions: Coalitions, length: int) -> Coalitions:
    missing = length - coalitions.members.shape[-2]
    pad = nn.functional.pad
    worths, measured = (pad(tensor, (0, missing)) for tensor in (coalitions.worths, coalitions.measured))
    return Coalitions(pad(coalitions.members, (0, 0, 0, missing)), worths, measured)


def _no_coalitions(evidence: Evidence) -> Coalitions:
    nothing = evidence.total.new_zeros(*evidence.total.shape, 0)
    return Coalitions(evidence.players.unsqueeze(-2)[..., :0, :], nothing, nothing.bool())
