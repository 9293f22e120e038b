"""The error of Shapley values from random permutations of the players, estimated without any."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT, Evidence


def permutation_variance(evidence: Evidence) -> Float[Tensor, "*batch"]:
    r"""Squared error expected of Shapley values from one random permutation of the players, summed over these.

    With pair interactions :math:`I_{ij}` a player gains its own effect and its interactions with all who came before. It
    comes at a uniformly random time, so that

    .. math:: \sum_i \mathrm{Var}(g_i) = \frac13 \sum_{i < j} I_{ij}^2 + \frac1{12} \sum_i \Big(\sum_j I_{ij}\Big)^2

    A player's interactions sum to leave-one-out minus add-one-in. The size of single ones follows from
    coalitions S of s of the M players and their complements: :math:`e(S) = f(S) + f(\bar S) - f(N) - f(\emptyset)` is minus
    the sum of the interactions cut in two, each with probability :math:`p = 2 s (M - s) / M (M - 1)`. Interactions of more
    players add to the variance, and are left out.

    Args:
        evidence: with coalitions of one player, of all but one, and of numbers between.

    Returns:
        ``(*batch,)``, in squared units of the output; of n permutations it is this over n.

    Reference: Castro, Gomez and Tejada, *Polynomial calculation of the Shapley value based on sampling*, 2009.
    """
    effects, players, coalitions = evidence.effects, evidence.players, evidence.coalitions
    together = torch.where(players, effects[..., LEAVE_ONE_OUT] - effects[..., ADD_ONE_IN], 0.0)
    own = together.square().sum(-1) / 12
    if coalitions is None:
        return own
    n = evidence.n_players.unsqueeze(-1).to(own)
    sizes = coalitions.members[..., ::2, :].sum(-1).to(own)
    cut = 2 * sizes * (n - sizes) / (n * (n - 1)).clamp(min=1)
    known = coalitions.measured.unflatten(-1, (-1, 2)).all(-1) & (sizes > 1) & (sizes < n - 1)
    even = coalitions.worths.unflatten(-1, (-1, 2)).sum(-1) - evidence.total.unsqueeze(-1)
    deviation = even + cut * together.sum(-1, keepdim=True) / 2
    squares = deviation.square() / torch.where(known, cut * (1 - cut), 1.0)
    return own + torch.where(known, squares, 0.0).sum(-1) / known.sum(-1).clamp(min=1) / 3
