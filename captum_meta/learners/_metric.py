"""What matching and prototypical networks share: a query row is explained from the support rows it resembles."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captum_meta.learners._config import described_part, part_of
from captum_meta.learners._coordinates import SupportCoordinates, coordinates
from captum_meta.learners._correction import factor
from captum_meta.learners._head import ClosedFormHead, HeadState
from captum_meta.learners._relative import loss_against_zero_shot
from captum_meta.learners.base import MetaLearner
from captum_meta.nn import (
    AttentionSimilarity,
    Encoder,
    EuclideanSimilarity,
    EvidenceEncoder,
    Explainer,
    MLPSimilarity,
    Prior,
    Similarity,
)
from captum_meta.nn.encoders import CONSTANT, Statistics, effect_sizes, fit_players
from captum_meta.types import Evidence, Explanations, ExplanationTask, Reading, Record

SimilarityFunction = Callable[[Tensor, Tensor], Tensor]
"""From queries ``(*batch, N, H)`` and keys ``(*batch, K, H)`` to scores ``(*batch, N, K)``."""

_NEVER = -1e9
_BOUND = 3.0


@dataclass(frozen=True)
class Memory(Record):
    """The remembered items: rows, or the prototypes of their classes.

    Attributes:
        keys: ``(*batch, K, P, H)``; P is M, or 1 where a whole row has one key.
        values: ``(*batch, K, M)``.
        players: ``(*batch, K, M)`` bool, where there is a value.
    """

    keys: Tensor
    values: Tensor
    players: Tensor


@dataclass(frozen=True)
class MetricState(Record):
    """State of the metric-based learners.

    Attributes:
        statistics: in which units rows are read.
        memory: what queries are compared with.
        head: the closed-form correction before retrieval, and where the support rows stand; None without.
    """

    statistics: Statistics
    memory: Memory
    head: HeadState | None = None
    support: SupportCoordinates | None = None


@dataclass(frozen=True)
class _Learned:
    """A state, and what it was made of: each row's part in the head's coefficients, the rows' keys and scaled values."""

    state: MetricState
    parts: HeadState | None
    keys: Tensor
    values: Tensor


class MetricLearner(MetaLearner[MetricState]):
    """Base of the metric-based learners; a subclass defines what is remembered of the support rows.

    Args: those of :class:`MatchingNetwork` but for ``neighbours``.
    """

    def __init__(
        self,
        explainer: Explainer,
        encoder: Encoder | Mapping[str, Any] | None = None,
        similarity: Similarity | SimilarityFunction | Mapping[str, Any] | None = None,
        head: ClosedFormHead | Mapping[str, Any] | Literal["none"] | None = None,
        values: Literal["residuals", "attributions"] = "residuals",
        key_width: int = 16,
        neighbours: int | None = None,
    ) -> None:
        super().__init__(explainer)
        if explainer.kind == "general":
            raise ValueError(
                f"{type(self).__name__} corrects a trained explainer, and there is none for general teachers: use Ridge."
            )
        if values not in ("residuals", "attributions"):
            raise ValueError(f'values must be "residuals" or "attributions", got {values!r}.')
        if neighbours is not None and neighbours < 1:
            raise ValueError(f"neighbours must be a positive number of support rows, got {neighbours}: pass None for all.")
        features = int(explainer.width)  # type: ignore[arg-type]
        built = part_of(encoder) if isinstance(encoder, Mapping) else encoder
        self.encoder: Encoder = built or EvidenceEncoder(features)
        raw = self.encoder.width is None
        self.project = nn.Identity() if raw else nn.Linear(int(self.encoder.width or 0), key_width, bias=False)
        made = part_of(similarity) if isinstance(similarity, Mapping) else similarity
        self.similarity: SimilarityFunction = made or EuclideanSimilarity()
        if raw and isinstance(made, (MLPSimilarity, AttentionSimilarity)):
            raise ValueError(
                f"{type(made).__name__} compares keys of one width, but {type(self.encoder).__name__} gives keys as wide as "
                "the explained model's inputs: use CosineSimilarity, EuclideanSimilarity or a callable of your own."
            )
        self.values, self.key_width, self.neighbours = values, key_width, neighbours
        self.head: ClosedFormHead | None = None
        if values == "residuals" and head != "none":
            self.head = ClosedFormHead.of(head, features)
        self.threshold = nn.Parameter(torch.tensor(-1.0))

    def arguments(self) -> dict[str, object]:
        return {
            "encoder": described_part("encoder", self.encoder),
            "similarity": described_part("similarity", self.similarity),
            "head": "none" if self.head is None else dict(self.head.arguments()),
            "values": self.values,
            "key_width": self.key_width,
            "neighbours": self.neighbours,
        }

    @property
    def reading(self) -> Reading:
        return Reading(layer=self.encoder.layer)

    def parts(self) -> dict[str, list[nn.Parameter]]:
        similarity = list(self.similarity.parameters()) if isinstance(self.similarity, nn.Module) else []
        similarity.append(self.threshold)
        mine = {id(parameter) for parameter in similarity}
        return {"encoder": [p for p in self.parameters() if id(p) not in mine], "similarity": similarity}

    @abstractmethod
    def remember(self, keys: Tensor, values: Tensor, players: Tensor, labels: Tensor | None) -> Memory:
        """The memory of the support rows ``(*batch, K, ...)``."""

    @abstractmethod
    def remember_without(
        self, keys: Tensor, values: Tensor, players: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """For each support row the memory without it.

        Scores ``(*batch, P, K, C)`` of the row with the C remembered ones, their values ``(*batch, K or 1, C, M)``, and
        where there is such a value, ``(*batch, M, K, C)``.
        """

    @abstractmethod
    def to_rows(self, weights: Tensor, keys: Tensor, players: Tensor, labels: Tensor | None) -> Tensor:
        """Weights ``(*batch, M, N, C)`` of what is remembered, as weights of the support rows ``(*batch, M, N, K)``."""

    def adapt(self, support: Explanations) -> MetricState:
        """Learn from the explained rows.

        Raises:
            ValueError: if there are no rows, the attributions are not finite, or not of the evidence's shape.
        """
        self.require_rows(support)
        support = support.without_coalitions()
        return self._learn(support).state

    def _learn(self, support: Explanations) -> _Learned:
        evidence = support.evidence
        prior = self.explainer.trained_prior(evidence)
        statistics = Statistics.of(prior, evidence)
        values = support.attributions
        if self.values == "residuals":
            values = values - self.explainer.complete(prior, evidence).attributions
        values = torch.where(evidence.players, values, 0.0)
        head, parts, where = None, None, None
        if self.head is not None:
            where = SupportCoordinates.of(coordinates(prior, evidence, statistics), evidence.players)
            head, parts, values = self.head.fit(support, prior, values, statistics, where)
        keys = self.project(self.encoder(prior, evidence, statistics))
        memory = self.remember(keys, values, evidence.players, support.labels)
        gain = torch.ones_like(statistics.unit)
        if self.values == "residuals":
            gain = self._gain(keys, values, evidence.players, support.labels)
        gain = gain[..., None, None]
        state = MetricState(statistics, replace(memory, values=memory.values * gain), head, where)
        return _Learned(state, parts, keys, values * gain)

    def corrected(self, prior: Prior, state: MetricState, evidence: Evidence) -> Prior:
        retrieved = self._retrieved(state, prior, evidence)
        if self.values == "attributions":
            return replace(prior, attributions=torch.where(evidence.players, retrieved, 0.0))
        if self.head is not None:
            assert state.head is not None and state.support is not None and state.head.trust.decay is not None
            regressed = self.head.correct(state.head, prior, evidence, state.statistics)
            z = coordinates(prior, evidence, state.statistics)
            near = state.support.nearness(z, evidence.players, state.head.trust.decay)
            retrieved = retrieved + state.head.trust.within_reach(regressed) * near
        return replace(prior, attributions=prior.attributions + _bounded(retrieved, evidence))

    def support_weights(self, support: Explanations, evidence: Evidence) -> Float[Tensor, "*batch N K"]:
        """The weight of each support row in the explanations, ``(*batch, N, K)``; 1 in sum, or 0 where no row has any.

        A support row's weight is its share of what the support set adds to the explanation: the sum over players of the
        absolute values that it contributes.
        """
        self.require_rows(support)
        support = support.without_coalitions()
        learned = self._learn(support)
        prior, n_players = self.explainer.trained_prior(evidence), evidence.players.shape[-1]
        weights = self._weights(learned.state, prior, evidence, learned.values.shape[-1])
        weights = self.to_rows(weights, learned.keys, support.evidence.players, support.labels)
        parts = fit_players(weights, n_players, -3) * fit_players(learned.values, n_players).mT.unsqueeze(-2)
        if self.head is not None and learned.parts is not None:
            shared, own = learned.parts.shared.unbind(-2), learned.parts.own.unbind(-3)
            alone = (replace(learned.parts, shared=one, own=other) for one, other in zip(shared, own, strict=True))
            rows = [self.head.correct(part, prior, evidence, learned.state.statistics).mT for part in alone]
            parts = parts + torch.stack(rows, dim=-1)
        sizes = torch.where(evidence.players.mT.unsqueeze(-1), parts, 0.0).abs().sum(-3)
        return sizes / sizes.sum(-1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny)

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """How much worse than zero-shot the adapted explanations are: :func:`loss_against_zero_shot`."""
        return loss_against_zero_shot(self, tasks)

    def _retrieved(self, state: MetricState, prior: Prior, evidence: Evidence) -> Tensor:
        width, n_players = state.memory.values.shape[-1], evidence.players.shape[-1]
        if self.values == "attributions" and width != n_players:
            raise ValueError(
                f"The support rows have {width} players and the query has {n_players}, but attributions can only be "
                'combined for the same players: adapt on such rows, or use values="residuals".'
            )
        weights = self._weights(state, prior, evidence, width)
        retrieved = torch.einsum("...mnk,...km->...nm", weights, state.memory.values)
        return fit_players(retrieved, n_players)

    def _weights(self, state: MetricState, prior: Prior, evidence: Evidence, width: int) -> Tensor:
        """Attention ``(*batch, M, N, C)`` of the rows to what is remembered, for the ``width`` players of the support."""
        queries, keys = self.project(self.encoder(prior, evidence, state.statistics)), state.memory.keys
        if keys.shape[-2] > 1:
            queries = fit_players(queries, width, -2)
        scores = self.similarity(queries.transpose(-3, -2), keys.transpose(-3, -2))
        return self._softmax(scores, state.memory.players.mT.unsqueeze(-2))

    def _softmax(self, scores: Tensor, known: Tensor) -> Tensor:
        """Attention ``(*batch, M, N, K)``; for residuals, with a threshold of similarity that takes part in the softmax."""
        scores = torch.where(known, scores, _NEVER)
        if self.neighbours is not None and self.neighbours < scores.shape[-1]:
            least = scores.topk(self.neighbours, dim=-1).values[..., -1:]
            alike = torch.finfo(scores.dtype).eps ** 0.5 * (1 + least.abs())  # equal rows differ by rounding
            scores = torch.where(scores >= least - alike, scores, _NEVER)
        if self.values == "residuals":
            nothing = self.threshold.to(scores).expand(*scores.shape[:-1], 1)
            return torch.cat([scores, nothing], dim=-1).softmax(-1)[..., :-1]
        return scores.softmax(-1)

    def _gain(self, keys: Tensor, values: Tensor, players: Tensor, labels: Tensor | None) -> Tensor:
        """The factor of retrieved values, from rows left out one at a time, ``(*batch,)``."""
        count = len(values[..., 0].movedim(-1, 0))
        if count < 2:
            return torch.zeros_like(values[..., 0, 0])
        scores, others, known = self.remember_without(keys, values, players, labels)
        weights = self._softmax(scores, known)
        retrieved = (weights.movedim(-3, -1) * others).sum(-2)
        return factor(retrieved, values)


def _bounded(correction: Tensor, evidence: Evidence) -> Tensor:
    """Corrections bounded by the size of the player's effects: 0 for a player without any."""
    bound = _BOUND * effect_sizes(evidence)
    known = evidence.players & (bound > CONSTANT)
    return torch.where(known, bound * torch.tanh(correction / torch.where(known, bound, 1.0)), 0.0)
