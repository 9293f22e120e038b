"""Attributions against the features that are known to matter, such as the pixels of an object."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta.functional._arguments import Reduction, Tensors, as_tuple, reduce
from captum_meta.functional._players import Players
from captum_meta.functional._ranks import descending_ranks


def pointing_game(
    attributions: Tensors,
    relevant: Tensors,
    feature_mask: Tensors | None = None,
    *,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Whether the greatest attribution falls on a relevant feature.

    .. math:: 1[\arg\max_i \phi_i \in R]

    Range: 0 or 1 per row. Higher is better.

    Args:
        attributions: ``(B, *features)``; the sign counts, pass magnitudes where it should not.
        relevant: bool or 0/1, in the shape of ``attributions``, or that broadcasts to it; at least one True per row.
        feature_mask: groups, each counted once; relevant if any of their features is.

    Reference: Zhang et al., *Top-down Neural Attention by Excitation Backprop*, ECCV 2016 (arXiv:1608.00507).

    >>> pointing_game(torch.tensor([[0.1, 0.9]]), torch.tensor([[False, True]]))
    tensor(1.)
    """
    rank, hit = _ranked(attributions, relevant, feature_mask)
    return reduce(((rank == 0) & hit).any(1).float(), reduction)


def relevance_rank_accuracy(
    attributions: Tensors,
    relevant: Tensors,
    feature_mask: Tensors | None = None,
    *,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Share of the relevant features among as many features of greatest attribution.

    .. math:: \frac{|T_{|R|}(\phi) \cap R|}{|R|}

    where :math:`T_k` are the ``k`` players of greatest attribution. Range: [0, 1]. Higher is better.

    Args:
        attributions: ``(B, *features)``; the sign counts, pass magnitudes where it should not.
        relevant: bool or 0/1, in the shape of ``attributions``, or that broadcasts to it; at least one True per row.
        feature_mask: groups, each counted once; relevant if any of their features is.

    Reference: Arras, Osman and Samek, *CLEVR-XAI*, Information Fusion 2022 (arXiv:2003.07258).

    >>> relevance_rank_accuracy(torch.tensor([[0.1, 0.9, 0.8]]), torch.tensor([[1, 1, 0]]))
    tensor(0.5000)
    """
    rank, hit = _ranked(attributions, relevant, feature_mask)
    wanted = hit.sum(1)
    found = (hit & (rank < wanted.unsqueeze(1))).sum(1)
    return reduce(found.float() / wanted, reduction)


def _ranked(
    attributions: Tensors, relevant: Tensors, feature_mask: Tensors | None
) -> tuple[Int64[Tensor, "B M"], Bool[Tensor, "B M"]]:
    """Each player's rank and whether it is relevant, both ``(B, M)``."""
    parts = as_tuple(attributions, "attributions")
    players = Players.of(parts, feature_mask)
    hit = players.any(_relevant_elements(relevant, parts))
    if not hit.any(1).all():
        rows = (~hit.any(1)).nonzero().flatten().tolist()
        raise ValueError(f"relevant is False everywhere in rows {rows[:8]}, which then have no answer: leave them out.")
    return descending_ranks(players.values(parts), players.present), hit


def _relevant_elements(relevant: Tensors, parts: tuple[Tensor, ...]) -> Bool[Tensor, "B D"]:
    marks = relevant if isinstance(relevant, tuple) else (relevant,)
    try:
        if len(marks) != len(parts):
            raise RuntimeError
        pairs = zip(marks, parts, strict=True)
        return torch.cat([mark.bool().expand_as(part).reshape(len(part), -1) for mark, part in pairs], 1)
    except RuntimeError:
        got, wanted = [tuple(mark.shape) for mark in marks], [tuple(part.shape) for part in parts]
        raise ValueError(f"relevant has shapes {got}; pass one that broadcasts to each of {wanted}.") from None
