"""Where the players of a row stand, and how far a row is from the support rows.

A regression says nothing of rows unlike those it was fitted to: random waves and lines do not fade far away.
"""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta.nn import Prior
from captum_meta.nn.encoders import five_effects, standardised
from captum_meta.types import Evidence, State

COORDINATES = 8
DECAYS = (0.3, 0.1)
"""Of corrections with the distance; left-out rows choose."""
_SAME = 1e-3
"""Rows at a smaller mean squared distance are taken for the same."""


def coordinates(prior: Prior, evidence: Evidence, statistics: State) -> Tensor:
    """Where each player stands, z, ``(*batch, N, M, 8)``, without units; 0 for what is not known."""
    unit = statistics["unit"][..., None, None]
    delta = torch.zeros_like(prior.attributions)
    if evidence.inputs is not None:
        both = standardised(evidence.inputs.to(delta), evidence, statistics).clamp(-5, 5)
        delta = (both[..., 0] - both[..., 1]).clamp(-5, 5)
    total = torch.asinh(evidence.total.unsqueeze(-1) / unit).expand_as(delta)
    effects, _ = five_effects(evidence)
    sizes = torch.asinh(3 * torch.cat([prior.attributions.unsqueeze(-1), effects], dim=-1) / unit.unsqueeze(-1))
    return torch.cat([torch.stack([delta, total], dim=-1), sizes], dim=-1)


def places(z: Tensor, players: Tensor) -> State:
    """What is to be known of the support rows, where their players stand at z ``(*batch, K, M, 8)``."""
    state = {"places": z.detach(), "placed": players}
    return {**state, "spacing": _nearest_fellow(state).mean(-1)}


def isolation(state: State) -> Tensor:
    """How far each support row is from its nearest fellow, beyond what is usual among them, ``(*batch, K)``."""
    return _beyond(_nearest_fellow(state), state)


def nearness(z: Tensor, players: Tensor, state: State) -> Tensor:
    r"""How much of its correction a row deserves, ``(*batch, N, 1)``.

    .. math:: e^{-\lambda \max(0,\, d / d_0 - 1)}

    with d the squared distance in z from the nearest support row, mean over players, :math:`d_0` the mean of the same over
    the support rows, each among its fellows, and lambda the state's ``decay``, one of :data:`DECAYS`.
    """
    others, theirs = state["places"], state["placed"].bool()
    both = min(z.shape[-2], others.shape[-2])
    distances = _distances(z.detach()[..., :both, :], others[..., :both, :], players[..., :both], theirs[..., :both])
    return torch.exp(-state["decay"][..., None] * _beyond(distances.amin(-1), state)).unsqueeze(-1)


def faded(corrections: Tensor, state: State) -> Tensor:
    """Left-out rows' corrections ``(S, *batch, K, M)`` at the nearness of each of D decays, ``(D * S, *batch, K, M)``."""
    beyond = isolation(state).unsqueeze(-1).to(corrections)
    return torch.cat([corrections * torch.exp(-decay * beyond) for decay in DECAYS])


def decay_of(option: Tensor, like: Tensor) -> Tensor:
    """The decays ``(*batch,)`` that were chosen, by number."""
    return torch.tensor(DECAYS, dtype=like.dtype, device=like.device)[option]


def _nearest_fellow(state: State) -> Tensor:
    z, players = state["places"], state["placed"].bool()
    distances = _distances(z, z, players, players)
    itself = torch.eye(distances.shape[-1], dtype=torch.bool, device=z.device)
    return distances.masked_fill(itself, torch.inf).amin(-1)


def _beyond(nearest: Tensor, state: State) -> Tensor:
    beyond = (nearest / (state["spacing"].unsqueeze(-1) + _SAME) - 1).clamp(min=0)
    return torch.where(state["spacing"].unsqueeze(-1).isfinite(), beyond, 0.0)


def _distances(left: Tensor, right: Tensor, players: Tensor, others: Tensor) -> Tensor:
    """Squared distances in z, mean over the players of both rows: ``(*batch, N, K)``; infinite where there are none."""
    mine, theirs = players.to(left), others.to(left)
    squares = (left.square().sum(-1) * mine) @ theirs.mT + mine @ (right.square().sum(-1) * theirs).mT
    products = (left * mine.unsqueeze(-1)).flatten(-2) @ (right * theirs.unsqueeze(-1)).flatten(-2).mT
    count = mine @ theirs.mT
    return torch.where(count > 0, (squares - 2 * products).clamp(min=0) / count.clamp(min=1), torch.inf)
