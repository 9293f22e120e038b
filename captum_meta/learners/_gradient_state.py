"""The state of gradient-based learners: the end of their inner loops."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_meta.nn import Prior
from captum_meta.optim import Tensors
from captum_meta.types import Record


@dataclass(frozen=True)
class GradientState(Record):
    """The end of an inner loop.

    Attributes:
        fast: by name the fast parameters, ``(*batch, *shape)``.
        strength: ``(*batch,)``, share of the way from the zero-shot answer to theirs.
    """

    fast: dict[str, Tensor]
    strength: Tensor


def between(start: Prior, end: Prior, strength: Tensor) -> Prior:
    """The prior at the share ``strength (*batch,)`` of the way; the start where the end is not finite."""
    ends = {name: value for name, value in vars(end).items() if value is not None}

    def mixed(name: str) -> Tensor:
        value: Tensor = getattr(start, name)
        way = ends[name] - value
        return value + strength[(..., *[None] * (value.dim() - strength.dim()))] * torch.where(way.isfinite(), way, 0.0)

    return replace(start, **{name: mixed(name) for name in ends})


def picked(trajectory: Sequence[Tensors], chosen: Tensor, stride: int) -> dict[str, Tensor]:
    """The chosen iterate of each task's first inner loop; a task has ``stride`` of them."""
    tasks = torch.arange(len(chosen), device=chosen.device)
    return {name: torch.stack([fast[name][::stride] for fast in trajectory])[chosen, tasks] for name in trajectory[0]}
