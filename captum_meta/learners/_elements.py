"""Inputs of a stacking's networks: elements in units of the support rows, and indices of known outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta.nn.encoders import effect_sizes, fit_players
from captum_meta.types import Coalitions, Evidence, Record


@dataclass(frozen=True)
class Elements(Record):
    """Mean and deviation of the players' elements over the support rows and their baselines, ``(*batch, M, D)``."""

    mean: Tensor
    deviation: Tensor

    @classmethod
    def of(cls, evidence: Evidence) -> Elements:
        """Those of support rows."""
        assert evidence.elements is not None
        both = torch.cat(evidence.elements.to(evidence.effects).unbind(-1), dim=-3)
        return cls(both.mean(-3), both.std(-3))


def in_units(evidence: Evidence, support: Elements) -> tuple[Tensor, Tensor]:
    """Inputs and baselines ``(*batch, N, M, D)`` in units of the support rows; equal for players without any effect."""
    assert evidence.elements is not None
    elements = evidence.elements.to(evidence.effects)
    n_players, n_elements = elements.shape[-3:-1]
    mean, deviation = (
        fit_players(fit_players(value, n_players, dim=-2), n_elements)[..., None, :, :, None]
        for value in (support.mean, support.deviation)
    )
    scaled = torch.where(deviation > 0, (elements - mean) / torch.where(deviation > 0, deviation, 1.0), 0.0)
    inputs, baselines = scaled.clamp(-5, 5).unbind(-1)
    return torch.where(effect_sizes(evidence).unsqueeze(-1) > 0, inputs, baselines), baselines


def scaled_gradients(coalitions: Coalitions, elements: Elements, unit: Tensor) -> Tensor | None:
    """Derivatives ``(*batch, K, S, M, D)`` of the worths by elements, both in the networks' units."""
    if coalitions.gradients is None:
        return None
    deviation = elements.deviation[..., None, None, :, :]
    return (coalitions.gradients * deviation / unit[..., None, None, None, None]).nan_to_num(0.0, 0.0, 0.0)


def targets_of(evidence: Evidence) -> Tensor:
    """The output of the model that each row explains, ``(*batch, N)``; 0 where it is unknown."""
    if evidence.targets is None:
        return torch.zeros_like(evidence.total, dtype=torch.long)
    return evidence.targets


def heads_of(evidence: Evidence, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """The networks' output for each row, ``(*batch, N)``, and whether there is one."""
    same = targets_of(evidence).unsqueeze(-1) == outputs.unsqueeze(-2)
    return same.to(torch.uint8).argmax(-1), same.any(-1)
