"""Path integrals without a network: a quadrature, its gap shared out by what the gradients' jumps tell of it.

What the interpolating polynomial misses of the sum over all players is known, for f at both ends is. What it misses of each
player is regressed on the jumps of gradients between neighbouring nodes, with the gap as the only observation:

.. math:: \\phi_i = \\sum_k w_k g_{ki} + \\gamma \\, \\frac{\\sum_j h_j^2 \\, \\sigma_j J_{ji}}
    {\\sum_j h_j^2 \\, (\\sigma_j^2 + |J_j|^2 / 100)}, \\qquad J_j = g_{j+1} - g_j, \\quad \\sigma_j = \\sum_i J_{ji}

with :math:`\\gamma` the gap and h the distances between nodes. From eight gradients on this is as good as the network where
players are many, at the cost of few passes over the gradients.
"""

from __future__ import annotations

from itertools import pairwise

import torch

from captum_meta.estimators import interval_weights
from captum_meta.nn.explainer import Prior, gap_shares
from captum_meta.types import Evidence

_RIDGE = 0.01
FEWEST_GRADIENTS, FEWEST_PLAYERS = 8, 256


def suffices(evidence: Evidence) -> bool:
    """Whether a network would add little."""
    n_players, n_gradients = evidence.effects.shape[-2:]
    return n_gradients >= FEWEST_GRADIENTS and n_players >= FEWEST_PLAYERS


def regressed(evidence: Evidence, width: int) -> Prior:
    """What the formula says of rows ``(*batch, M)``, with ``width`` features that say nothing."""
    effects = torch.where(evidence.measured, evidence.effects, 0.0)
    weights, sums = interval_weights(evidence.points).sum(-2).to(effects), effects.sum(-2)
    gap = evidence.total - (weights * sums).sum(-1)
    widths, jumps = evidence.points.diff(dim=-1), sums.diff(dim=-1)
    nodes = effects.unbind(-1)
    squares = torch.stack([(b - a).square().sum(-1) for a, b in pairwise(nodes)], dim=-1)
    energy = widths.square()
    explained = (energy * (jumps.square() + _RIDGE * squares)).sum(-1).clamp(min=torch.finfo(effects.dtype).tiny)
    of_jumps = energy * jumps * (gap / explained).unsqueeze(-1)
    of_nodes = weights - torch.nn.functional.pad(of_jumps, (1, 1)).diff(dim=-1)
    values = torch.where(evidence.players, (effects @ of_nodes.unsqueeze(-1)).squeeze(-1), 0.0)
    return Prior(
        attributions=values,
        spread=gap_shares(values.abs(), evidence.players),
        scale=torch.ones_like(evidence.total),
        features=values.new_zeros(()).expand(*values.shape, width),
    )
