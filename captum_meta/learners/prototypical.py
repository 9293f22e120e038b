"""Prototypical networks."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from captum_meta._numbers import at_least
from captum_meta.learners._head import ClosedFormHead
from captum_meta.learners._metric import Memory, MetricLearner, SimilarityFunction
from captum_meta.nn import Encoder, Explainer, Similarity
from captum_meta.nn.blocks import masked_mean

_NONE = 1e-6


class PrototypicalNetwork(MetricLearner):
    r"""A query row is explained from the means of the support set's classes (Snell et al. 2017).

    Matching, :class:`MatchingNetwork`, in which the support rows are replaced by the prototypes of their classes:

    .. math:: p_{ci} = \frac{1}{\sum_s m_{sc}} \sum_s m_{sc} f_i(s), \qquad
        \rho_{ci} = \frac{1}{\sum_s m_{sc}} \sum_s m_{sc}\, \rho_{si}

    The classes are the labels of the support rows (a front end labels them with their targets), and :math:`m_{sc}` is 1
    where s is of class c. Without labels there are ``clusters`` classes with learned centres, and :math:`m_s` is the softmax
    of the row's distances from them.

    Args:
        explainer, encoder, similarity, head, values, key_width: as in :class:`MatchingNetwork`.
        clusters: classes of support sets without labels.
    """

    def __init__(
        self,
        explainer: Explainer,
        encoder: Encoder | Mapping[str, Any] | None = None,
        similarity: Similarity | SimilarityFunction | Mapping[str, Any] | None = None,
        head: ClosedFormHead | Mapping[str, Any] | Literal["none"] | None = None,
        values: Literal["residuals", "attributions"] = "residuals",
        key_width: int = 16,
        clusters: int = 4,
    ) -> None:
        super().__init__(explainer, encoder, similarity, head, values, key_width)
        if self.encoder.width is None:
            raise ValueError(
                f"{type(self.encoder).__name__} gives keys as wide as the explained model's inputs, between which clusters "
                "cannot be learned: use an InputEncoder."
            )
        self.clusters = at_least("clusters", clusters, 1)
        generator = torch.Generator().manual_seed(0)
        self.centres = nn.Parameter(torch.randn(clusters, key_width, generator=generator, device="cpu"))

    def arguments(self) -> dict[str, object]:
        arguments = {name: value for name, value in super().arguments().items() if name != "neighbours"}
        return {**arguments, "clusters": self.clusters}

    def remember(self, keys: Tensor, values: Tensor, players: Tensor, labels: Tensor | None) -> Memory:
        member = self._members(keys, players, labels)
        prototypes = torch.einsum("...kc,...kph->...cph", member, keys) / _some(member.sum(-2))[..., None, None]
        present = member.mT @ players.to(member)
        return Memory(prototypes, member.mT @ values / _some(present), present > _NONE)

    def remember_without(
        self, keys: Tensor, values: Tensor, players: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        member = self._members(keys, players, labels)
        counts = member.sum(-2, keepdim=True) - member
        sums = torch.einsum("...kc,...kph->...cph", member, keys).unsqueeze(-4)
        left = sums - member[..., None, None] * keys.unsqueeze(-3)
        prototypes = left / _some(counts)[..., None, None]
        queries = keys.transpose(-3, -2).unsqueeze(-2)
        scores = self.similarity(queries, prototypes.movedim(-2, -4)).squeeze(-2)
        present = (member.mT @ players.to(member)).unsqueeze(-3) - member.unsqueeze(-1) * players.to(member).unsqueeze(-2)
        totals = (member.mT @ values).unsqueeze(-3) - member.unsqueeze(-1) * values.unsqueeze(-2)
        return scores, totals / _some(present), (present > _NONE).movedim(-1, -3)

    def to_rows(self, weights: Tensor, keys: Tensor, players: Tensor, labels: Tensor | None) -> Tensor:
        member = self._members(keys, players, labels)
        present = _some(member.mT @ players.to(member))
        return (weights / present.mT.unsqueeze(-2)) @ member.mT.unsqueeze(-3)

    def _members(self, keys: Tensor, players: Tensor, labels: Tensor | None) -> Tensor:
        """How much each support row is of each class, ``(*batch, K, C)``."""
        if labels is not None:
            return (labels.unsqueeze(-1) == labels.unique()).to(keys)
        mask = players.unsqueeze(-1) if keys.shape[-2] > 1 else torch.ones_like(keys[..., :1], dtype=torch.bool)
        rows = masked_mean(keys, mask, -2)
        distances = (rows.unsqueeze(-2) - self.centres).square().sum(-1)
        return (-distances).softmax(-1)


def _some(counts: Tensor) -> Tensor:
    return counts.clamp(min=_NONE)
