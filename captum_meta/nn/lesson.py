"""Training data of networks that imitate the explained model, and their initial weights."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from captum_meta.nn.surrogate import Networks
from captum_meta.types import Record

_WIDTH = 32


@dataclass(frozen=True)
class Lesson(Record):
    """Evaluations of the explained model.

    Attributes:
        members: ``(*batch, K, S, M)`` bool, coalitions of K rows.
        inputs, baselines: ``(*batch, K, M, D)``, elements of their players.
        worths: ``(*batch, K, S)``, f minus f(baseline), in units of their root mean square.
        known: ``(*batch, F, K, S)`` bool, those that each of F networks is fitted to.
        heads: ``(*batch, K)`` int64, indices of their outputs.
        ranks: ``(*batch, M)`` int64, ranks of the players, by which they get initial weights.
        gradients: ``(*batch, K, S, M, D)``, derivatives of the worths with respect to the elements, or None.
    """

    members: Tensor
    inputs: Tensor
    baselines: Tensor
    worths: Tensor
    known: Tensor
    heads: Tensor
    ranks: Tensor
    gradients: Tensor | None = None


def initial(lesson: Lesson, n_heads: int, generator: Generator) -> Networks:
    """The same initial weights for all members, tasks and outputs."""
    like, batch, members = lesson.worths, lesson.ranks.shape[:-1], lesson.known.shape[-3]
    n_players, n_elements = lesson.inputs.shape[-2:]

    def normal(*shape: int) -> Tensor:
        drawn = (
            torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)
            / torch.Size(shape[:-1]).numel() ** 0.5
        )
        return drawn.to(like)

    def repeated(value: Tensor) -> Tensor:
        return value.unsqueeze(len(batch)).repeat(*[1] * len(batch), members, *[1] * (value.dim() - len(batch)))

    enter = normal(n_players, n_elements, _WIDTH)[lesson.ranks]
    inner, leave = normal(_WIDTH, _WIDTH), normal(_WIDTH, 1).expand(-1, n_heads)
    nothing = like.new_zeros(*batch, 1, _WIDTH)
    return Networks(
        enter=repeated(enter),
        enter_bias=repeated(nothing),
        inner=repeated(inner.expand(*batch, -1, -1)),
        inner_bias=repeated(nothing),
        leave=repeated(leave.expand(*batch, -1, -1)),
    )
