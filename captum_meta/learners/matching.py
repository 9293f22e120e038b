"""Matching networks."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta.learners._metric import Memory, MetricLearner


class MatchingNetwork(MetricLearner):
    r"""A query row is explained from the support rows it resembles (Vinyals et al. 2016).

    .. math:: \hat\phi_{qi} = \phi^0_{qi} + h_{qi} + \gamma \sum_s a_i(q, s)\, \rho_{si}, \qquad
        a_i(q, \cdot) = \text{softmax}\big(g(f_i(q), f_i(s_1)), \dots, g(f_i(q), f_i(s_K)), \theta\big)

    with the zero-shot explanation :math:`\phi^0`, the correction h of a closed-form head, what this head misses of support
    row s when it is left out, :math:`\rho_s`, and a factor gamma judged by leaving rows out. The threshold theta takes the
    weight of a query that resembles no support row. Attention is from player to player: f encodes a player within its row.

    The literal form, :math:`\sum_s a(q, s) \phi_{si}`, is ``MatchingNetwork(explainer, RawInputs(), CosineSimilarity(),
    values="attributions")``. Before it has support rows, it explains zero-shot.

    Args:
        explainer: the network from evidence to attributions.
        encoder: what is compared, f: by default an :class:`~captum_meta.nn.EvidenceEncoder`.
        similarity: how, g: one of :mod:`captum_meta.nn.similarities` or any callable from ``(*batch, N, H)`` and
            ``(*batch, K, H)`` to ``(*batch, N, K)``; by default the negative squared distance.
        head: closed-form correction before retrieval; ``"none"`` for retrieval alone.
        values: what is retrieved: ``"residuals"`` of the explanations so far, or the support rows' ``"attributions"``.
        key_width: H, to which the encoder's keys are projected.
        neighbours: retrieve from so many most similar rows alone; None for all.
    """

    def remember(self, keys: Tensor, values: Tensor, players: Tensor, labels: Tensor | None) -> Memory:
        return Memory(keys, values, players)

    def remember_without(
        self, keys: Tensor, values: Tensor, players: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        by_player = keys.transpose(-3, -2)
        others = ~torch.eye(len(players[..., 0].movedim(-1, 0)), dtype=torch.bool, device=players.device)
        known = players.mT.unsqueeze(-2) & others
        return self.similarity(by_player, by_player), values.unsqueeze(-3), known

    def to_rows(self, weights: Tensor, keys: Tensor, players: Tensor, labels: Tensor | None) -> Tensor:
        return weights
