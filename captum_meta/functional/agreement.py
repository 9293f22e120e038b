"""Agreement of two attributions of the same rows."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta.functional._arguments import Reduction, Tensors, as_tuple, reduce
from captum_meta.functional._players import Players
from captum_meta.functional._ranks import average_ranks, correlation, descending_ranks

Agreement = Literal["feature", "rank", "sign", "signed_rank"]


def top_k_agreement(
    attributions: Tensors,
    reference: Tensors,
    feature_mask: Tensors | None = None,
    *,
    k: int = 5,
    kind: Agreement = "feature",
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Share of the ``k`` players of greatest magnitude on which two attributions agree.

    .. math:: \frac1k \big|\{i \in T_k(\hat\phi) \cap T_k(\phi) : c_i\}\big|

    where :math:`T_k` are the ``k`` players of greatest magnitude and the condition :math:`c_i` is none
    (``"feature"``), the same place in both orders (``"rank"``), the same sign (``"sign"``), or both
    (``"signed_rank"``). Equal magnitudes are ordered as the players are. Range: [0, 1]. Higher is better.

    Args:
        attributions, reference: ``(B, *features)``.
        feature_mask: groups, each counted once.
        k: at most the number of players of any row.

    Reference: Krishna et al., *The Disagreement Problem in Explainable Machine Learning*, 2022 (arXiv:2202.01602).

    >>> first, second = torch.tensor([[3.0, -2.0, 0.1]]), torch.tensor([[2.0, 3.0, 0.0]])
    >>> top_k_agreement(first, second, k=2), top_k_agreement(first, second, k=2, kind="sign")
    (tensor(1.), tensor(0.5000))
    """
    players = Players.of(as_tuple(reference, "reference"), feature_mask)
    fewest = int(players.counts.min())
    if not 1 <= k <= fewest:
        raise ValueError(f"k is {k}, but a row has {fewest} players: pass k from 1 to {fewest}.")
    first, second = players.values(attributions), players.values(reference, "reference")
    first_rank = descending_ranks(first.abs(), players.present)
    second_rank = descending_ranks(second.abs(), players.present)
    shared = (first_rank < k) & (second_rank < k)
    same_place, same_sign = first_rank == second_rank, first.sign() == second.sign()
    conditions = {
        "feature": shared,
        "rank": shared & same_place,
        "sign": shared & same_sign,
        "signed_rank": shared & same_place & same_sign,
    }
    if kind not in conditions:
        raise ValueError(f"kind is {kind!r}: pass one of {', '.join(conditions)}.")
    return reduce(torch.sum(conditions[kind], 1).to(first.dtype) / k, reduction)


def rank_correlation(
    attributions: Tensors,
    reference: Tensors,
    feature_mask: Tensors | None = None,
    *,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Spearman's correlation of two attributions over the players of each row.

    .. math:: \rho = \mathrm{corr}\big(\mathrm{rank}(\hat\phi), \mathrm{rank}(\phi)\big)

    Ties share the mean of their ranks; 0 where either side is constant. Range: [-1, 1]. Higher is better.

    Args:
        attributions, reference: ``(B, *features)``.
        feature_mask: groups, each counted once.

    Reference: Spearman, *The Proof and Measurement of Association between Two Things*, 1904.

    >>> rank_correlation(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 5.0, 9.0]]))
    tensor(1.)
    """
    players = Players.of(as_tuple(reference, "reference"), feature_mask)
    pair = (players.values(attributions), players.values(reference, "reference"))
    return reduce(rank_correlation_of_players(*pair, players.present), reduction)


def rank_correlation_of_players(
    first: Float[Tensor, "B M"], second: Float[Tensor, "B M"], present: Bool[Tensor, "B M"]
) -> Float[Tensor, " B"]:
    """Spearman's correlation of values ``(B, M)``, one per row."""
    return correlation(average_ranks(first, present), average_ranks(second, present), present)
