"""How few players carry an attribution."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.functional._arguments import Reduction, Tensors, as_tuple, reduce
from captum_meta.functional._players import Players


def sparseness(
    attributions: Tensors, feature_mask: Tensors | None = None, *, reduction: Reduction = "mean"
) -> Float[Tensor, "*reduced"]:
    r"""Gini index of the magnitudes of a row's attributions.

    .. math:: 1 - 2 \sum_{i=1}^M \frac{a_{(i)}}{\sum_j a_j} \cdot \frac{M - i + 1/2}{M}

    with :math:`a_{(1)} \le \dots \le a_{(M)}` the magnitudes in order; 0 for a row of zeros. Range:
    :math:`[0, 1 - 1/M]`. Higher is sparser, which is held to be better.

    Args:
        attributions: ``(B, *features)``.
        feature_mask: groups, each counted once.

    Reference: Chalasani et al., *Concise Explanations of Neural Networks using Adversarial Training*, ICML 2020
    (arXiv:1810.06583).

    >>> sparseness(torch.tensor([[1.0, 1.0], [0.0, 3.0]]), reduction="none")
    tensor([0.0000, 0.5000])
    """
    sizes, players = _magnitudes(attributions, feature_mask)
    ordered = sizes.masked_fill(~players.present, -1).sort(1).values
    count = players.counts.to(sizes.dtype).unsqueeze(1)
    above = torch.arange(sizes.shape[1], 0, -1, device=sizes.device)
    weights = (above - 0.5) / count * (ordered >= 0)
    total = sizes.sum(1)
    gini = 1 - 2 * (ordered * weights).sum(1) / total.masked_fill(total == 0, 1)
    return reduce(gini.clamp(min=0).masked_fill(total == 0, 0), reduction)


def complexity(
    attributions: Tensors, feature_mask: Tensors | None = None, *, reduction: Reduction = "mean"
) -> Float[Tensor, "*reduced"]:
    r"""Entropy of the magnitudes of a row's attributions.

    .. math:: -\sum_i p_i \log p_i, \qquad p_i = \frac{|\phi_i|}{\sum_j |\phi_j|}

    A row of zeros counts as evenly spread. Range: :math:`[0, \log M]`. Lower is simpler, which is held to be better.

    Args:
        attributions: ``(B, *features)``.
        feature_mask: groups, each counted once.

    Reference: Bhatt, Weller and Moura, *Evaluating and Aggregating Feature-based Model Explanations*, IJCAI 2020
    (arXiv:2005.00631).

    >>> complexity(torch.tensor([[1.0, 1.0], [0.0, 3.0]]), reduction="none")
    tensor([0.6931, 0.0000])
    """
    sizes, players = _magnitudes(attributions, feature_mask)
    total = sizes.sum(1, keepdim=True)
    sizes = torch.where(total == 0, players.present.to(sizes.dtype), sizes)
    shares = sizes / sizes.sum(1, keepdim=True)
    return reduce(torch.special.entr(shares).sum(1), reduction)


def _magnitudes(attributions: Tensors, feature_mask: Tensors | None) -> tuple[Tensor, Players]:
    players = Players.of(as_tuple(attributions, "attributions"), feature_mask)
    sizes = players.values(attributions).abs()
    return sizes / sizes.amax(1, keepdim=True).clamp(min=torch.finfo(sizes.dtype).tiny), players
