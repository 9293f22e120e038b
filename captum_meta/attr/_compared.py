"""A few numbers for each calibration row and level of effort, from the method's and the teacher's attributions."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from captum_meta.records import Record

Measure = Literal["distance", "relative", "players"]
MEASURES: tuple[Measure, ...] = ("distance", "relative", "players")


@dataclass(frozen=True)
class Lengths(Record):
    """How long attributions are, ``(*batch,)`` float64.

    Attributes:
        length: their L2 norm.
        widest: the largest of :func:`shares`.
    """

    length: Tensor
    widest: Tensor

    @classmethod
    def of(cls, values: Tensor, counts: Tensor) -> Lengths:
        """Of attributions ``(*batch, M)`` of rows with ``counts (*batch,)`` players."""
        return cls(values.norm(dim=-1), shares(values, counts).amax(-1))

    def widths(self, measure: Measure, scores: Tensor) -> Tensor:
        """Bounds in units of the scale, ``(*batch,)``; for players the widest of the row."""
        if measure == "relative":
            return over(scores, self.length)
        return scores * self.widest if measure == "players" else scores


@dataclass(frozen=True)
class Errors(Record):
    """How far attributions are from the teacher's, ``(*batch,)`` float64; NaN where the method gave none.

    Attributes:
        distance: L2 norm of the difference.
        relative: the same over the norm of the teacher's.
        peak: the largest of the players' differences over their :func:`shares`.
    """

    distance: Tensor
    relative: Tensor
    peak: Tensor

    @classmethod
    def of(cls, values: Tensor, truth: Tensor, counts: Tensor) -> Errors:
        """Of attributions and the teacher's, both ``(*batch, M)``."""
        difference = values - truth
        distance, peak = difference.norm(dim=-1), over(difference.abs(), shares(values, counts)).amax(-1)
        return cls(distance, over(distance, truth.norm(dim=-1)), peak)

    def ratios(self, measure: Measure, lengths: Lengths, scores: Tensor) -> Tensor:
        """The smallest scale that keeps errors within their bounds; infinite where errors are unknown."""
        if measure == "players":
            found = over(self.peak, scores)
        else:
            error = self.relative if measure == "relative" else self.distance
            found = over(error, lengths.widths(measure, scores))
        return found.nan_to_num(torch.inf, torch.inf)


@dataclass(frozen=True)
class Compared(Record):
    """N rows at L levels of effort.

    Attributes:
        errors, lengths: ``(N, L)``.
        signals: ``(N, L, S)``, numbers correlated with the errors.
        features: ``(N, L, F)``, features of the rows for the difficulty score.
        content: ``(N, C)``, features of the rows to compare them with others.
    """

    errors: Errors
    lengths: Lengths
    signals: Tensor
    features: Tensor
    content: Tensor


def shares(values: Tensor, counts: Tensor) -> Tensor:
    """Each player's share of a row's bound, ``(*batch, M)``: half evenly, half by the size of its attribution."""
    length, alike = values.norm(dim=-1, keepdim=True), counts.clamp(min=1).to(values).rsqrt().unsqueeze(-1)
    return (alike + torch.where(length > 0, values.abs() / length, alike)) / 2


def bounds(measure: Measure, scale: Tensor, scores: Tensor, values: Tensor, counts: Tensor) -> Tensor:
    """Bounds ``(R,)``, or half-widths ``(R, M)`` of the players' intervals; NaN where the attributions are not finite.

    The scale, the scores and the counts of players are ``(R,)``, the attributions ``(R, M)``.
    """
    known = values.isfinite().all(-1)
    if measure == "players":
        sizes, scale, known = scores.unsqueeze(-1) * shares(values, counts), scale.unsqueeze(-1), known.unsqueeze(-1)
    else:
        sizes = Lengths.of(values, counts).widths(measure, scores)
    return torch.where(known, torch.where(scale == 0, torch.zeros_like(sizes), scale * sizes), torch.nan)


def over(numerators: Tensor, denominators: Tensor) -> Tensor:
    """The quotient, with 0 / 0 = 0."""
    return torch.where(numerators == 0, torch.zeros_like(numerators * denominators), numerators / denominators)
