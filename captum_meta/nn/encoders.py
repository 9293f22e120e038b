"""Encoders: the keys by which a row is compared with the support rows.

An encoder turns evidence into keys ``(*batch, N, P, H)``: one for each player (P = M), or one for the whole row (P = 1).
Players' inputs are in units of the support set's own mean and deviation, so that the model's units do not matter.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captum_meta.nn.blocks import Described, PoolingBlock, masked_mean, player_sizes
from captum_meta.nn.explainer import Prior, row_scale
from captum_meta.types import SHAPLEY_CHANNELS, Evidence, Record

CONSTANT = 1e-15
"""A model whose output changes by no more than this counts as constant."""
_INPUT_NUMBERS, _EVIDENCE_NUMBERS = 5, 2 * len(SHAPLEY_CHANNELS) + 1


@dataclass(frozen=True)
class Statistics(Record):
    """Units in which rows are read, from the support rows; None for what these do not have.

    Attributes:
        unit: ``(*batch,)``, of the output, the root mean square of the rows' scales.
        input_mean, input_deviation: ``(*batch, M)``, of each player's inputs.
        embedding_mean, embedding_deviation: ``(*batch, E)``.
    """

    unit: Tensor
    input_mean: Tensor | None = None
    input_deviation: Tensor | None = None
    embedding_mean: Tensor | None = None
    embedding_deviation: Tensor | None = None

    @classmethod
    def of(cls, prior: Prior, evidence: Evidence) -> Statistics:
        """Those of the rows ``(*batch, K)``, for which the explainer proposes ``prior``."""
        typical = prior.scale.square().mean(-1).sqrt()
        found: dict[str, Tensor] = {}
        if evidence.inputs is not None:
            values = evidence.inputs[..., 0].to(evidence.effects)
            found["input_mean"], found["input_deviation"] = _moments(values, evidence.players)
        if evidence.embedding is not None:
            known = torch.ones_like(evidence.embedding, dtype=torch.bool)
            found["embedding_mean"], found["embedding_deviation"] = _moments(evidence.embedding, known)
        return cls(torch.where(typical > CONSTANT, typical, 1.0), **found)


class Encoder(Described, nn.Module, ABC):
    """From evidence, the explainer's answer, and the support set's statistics to keys ``(*batch, N, P, H)``.

    Attributes:
        width: H, or None where it depends on the explained model.
        layer: name of the explained model's module whose output is wanted as embedding, or None.
    """

    width: int | None = None
    layer: str | None = None

    @abstractmethod
    def forward(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> Tensor:
        """Keys of the rows."""


class RawInputs(Encoder):
    """The inputs and baselines of all players side by side, as they are: one key per row, of the width 2M."""

    def forward(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> Tensor:
        return standardised(_inputs(evidence), evidence, statistics).flatten(-2).unsqueeze(-2)


class EmbeddingEncoder(Encoder):
    """The standardised output of one of the explained model's modules; one key per row.

    It is projected to ``width`` dimensions by a fixed random matrix, which keeps distances (Johnson and Lindenstrauss).

    Args:
        layer: name of the module in ``forward_func.named_modules()``.
        width: H.
    """

    width: int

    def __init__(self, layer: str, width: int = 32) -> None:
        super().__init__()
        self.layer, self.width = layer, width

    def forward(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> Tensor:
        embedding = evidence.embedding
        if embedding is None:
            raise ValueError(
                f"This learner compares outputs of the module {self.layer!r}, which the evidence does not hold: explain "
                "through a front end whose forward_func is an nn.Module with a module of that name."
            )
        assert statistics.embedding_mean is not None and statistics.embedding_deviation is not None
        centred = (embedding - statistics.embedding_mean.unsqueeze(-2)) / statistics.embedding_deviation.unsqueeze(-2)
        generator = torch.Generator().manual_seed(embedding.shape[-1])
        projection = torch.randn(embedding.shape[-1], self.width, generator=generator, dtype=torch.float32)
        projection = projection / embedding.shape[-1] ** 0.5
        return (centred @ projection.to(centred)).unsqueeze(-2)


class _PlayerEncoder(Encoder):
    """An MLP, and blocks that pool over all players, from numbers of each player to its key."""

    width: int

    def __init__(self, numbers: int, width: int, depth: int) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        self.encode = nn.Sequential(nn.Linear(numbers, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList([PoolingBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)

    @abstractmethod
    def read(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> Float[Tensor, "*batch M numbers"]:
        """Scale-free numbers of each player, ``(*batch, N, M, numbers)``."""

    def forward(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> Tensor:
        hidden = self.encode(self.read(prior, evidence, statistics).to(self.norm.weight))
        for block in self.blocks:
            hidden = block(hidden, evidence.players)
        return self.norm(hidden)


class InputEncoder(_PlayerEncoder):
    """Reads the players' inputs and baselines alone.

    Args:
        width: H.
        depth: number of pooling blocks.
    """

    def __init__(self, width: int = 32, depth: int = 1) -> None:
        super().__init__(_INPUT_NUMBERS, width, depth)

    def read(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> Float[Tensor, "*batch M numbers"]:
        return _input_numbers(_inputs(evidence), evidence, statistics)


class EvidenceEncoder(_PlayerEncoder):
    """Reads the measured effects, the explainer's features and its answer, and the inputs where they are known.

    Args:
        features: width of the explainer's features.
        width: H.
        depth: number of pooling blocks.
    """

    def __init__(self, features: int = 32, width: int = 48, depth: int = 1) -> None:
        super().__init__(features + _EVIDENCE_NUMBERS + _INPUT_NUMBERS, width, depth)
        self.features = features

    def read(self, prior: Prior, evidence: Evidence, statistics: Statistics) -> Float[Tensor, "*batch M numbers"]:
        size = effect_sizes(evidence).unsqueeze(-1)
        features = torch.where(size > 0, prior.features / torch.where(size > 0, size, 1.0), 0.0).clamp(-10, 10)
        unit = prior.scale.unsqueeze(-1)
        effects, measured = five_effects(evidence)
        answer = torch.asinh(3 * prior.attributions / unit).unsqueeze(-1)
        parts = [features, torch.asinh(3 * effects / unit.unsqueeze(-1)), measured.to(features), answer]
        if evidence.inputs is None:
            parts.append(features.new_zeros(*features.shape[:-1], _INPUT_NUMBERS))
        else:
            parts.append(_input_numbers(evidence.inputs.to(features), evidence, statistics))
        return torch.cat(parts, dim=-1)


def effect_sizes(evidence: Evidence) -> Float[Tensor, "*batch M"]:
    """Mean absolute measured effect of each player, ``(*batch, M)``, in units of the output."""
    return player_sizes(evidence.effects, evidence.measured, evidence.players, row_scale(evidence))


def _moments(values: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation over rows, 0 where no row has a value; deviations have a floor relative to the other columns."""
    mean = masked_mean(values, mask, -2)
    variance = masked_mean((values - mean.unsqueeze(-2)).square(), mask, -2)
    typical = masked_mean(variance, mask.any(-2), -1).unsqueeze(-1)
    deviation = (variance + 0.1 * typical).sqrt().clamp(min=1e-12)
    return mean, torch.where(mask.any(-2), deviation, 0.0)


def _inputs(evidence: Evidence) -> Tensor:
    if evidence.inputs is None:
        raise ValueError(
            "This learner compares inputs, which the evidence does not hold (more than 4,096 players, or one number for a "
            "whole batch): use an EvidenceEncoder."
        )
    return evidence.inputs.to(evidence.effects)


def standardised(
    inputs: Float[Tensor, "*batch M 2"], evidence: Evidence, statistics: Statistics
) -> Float[Tensor, "*batch M 2"]:
    """Inputs and baselines ``(*batch, M, 2)`` in units of the support rows' deviation; 0 for players these never had."""
    if statistics.input_mean is None or statistics.input_deviation is None:
        return torch.zeros_like(inputs)
    mean = fit_players(statistics.input_mean, inputs.shape[-2])
    deviation = fit_players(statistics.input_deviation, inputs.shape[-2])
    known = (deviation > 0).unsqueeze(-2).unsqueeze(-1) & evidence.players.unsqueeze(-1)
    scaled = (inputs - mean.unsqueeze(-2).unsqueeze(-1)) / torch.where(deviation > 0, deviation, 1.0)[..., None, :, None]
    return torch.where(known, scaled, 0.0)


def _input_numbers(inputs: Tensor, evidence: Evidence, statistics: Statistics) -> Tensor:
    both = standardised(inputs, evidence, statistics).clamp(-5, 5)
    x, baseline = both.unbind(-1)
    delta = (x - baseline).clamp(-5, 5)
    return torch.stack([x, baseline, delta, x.abs(), delta.abs()], dim=-1)


def fit_players(values: Tensor, n_players: int, dim: int = -1) -> Tensor:
    """Values whose dimension ``dim``, counted from the end, is that of the players, for ``n_players``: new ones get 0."""
    values = values.narrow(dim, 0, min(n_players, values.shape[dim]))
    return nn.functional.pad(values, [0, 0] * (-1 - dim) + [0, n_players - values.shape[dim]])


def five_effects(evidence: Evidence) -> tuple[Tensor, Tensor]:
    """The five channels of the Shapley kind; first, middle, last, mean and spread of those along a path."""
    measured = evidence.measured & evidence.players.unsqueeze(-1)
    effects = torch.where(measured, evidence.effects, 0.0)
    count = effects.shape[-1]
    if count == len(SHAPLEY_CHANNELS) and evidence.points.shape[-1] < count:
        return effects, measured
    mean = effects.mean(-1)
    spread = (effects - mean.unsqueeze(-1)).square().mean(-1).sqrt()
    chosen = [effects[..., 0], effects[..., count // 2], effects[..., -1], mean, spread]
    return torch.stack(chosen, dim=-1), measured.any(-1, keepdim=True).expand(*mean.shape, len(chosen))
