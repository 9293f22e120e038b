"""Exact answers, or nearly so, for labels, references and tests.

They ask a game only what all games are asked: its values at coalitions, or gradients along its path.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from captum_meta.estimators import all_coalitions, gauss_legendre, shapley_values

Values = Callable[[Tensor], Tensor]
"""From coalitions ``(..., S, M)`` to the game's values there, ``(..., S)``."""


def exact_shapley_values(values: Values, n_players: int, device: torch.device | None = None) -> Float[Tensor, "*batch M"]:
    """Shapley values ``(..., M)`` from the values of all coalitions.

    >>> exact_shapley_values(lambda members: members.float().prod(-1) * 6, 3).tolist()
    [2.0, 2.0, 2.0]
    """
    found = values(all_coalitions(n_players, device))
    worths = found.double() - found[..., :1].double()  # what is added to all values is not to be summed up
    return shapley_values(worths).to(found)


def permutation_gains(values: Values, order: Int64[Tensor, "*batch M"]) -> Float[Tensor, "*batch M"]:
    """Each player's marginal contribution in an order of all players, ``(..., M)``.

    Args:
        values: of the game.
        order: ``(..., M)`` int64, a permutation of the players.

    >>> permutation_gains(lambda members: members[..., 0] * members[..., 1] * 5.0, torch.tensor([1, 0])).tolist()
    [5.0, 0.0]
    """
    rank = order.argsort(-1)
    members = rank.unsqueeze(-2) < torch.arange(rank.shape[-1] + 1, device=rank.device).unsqueeze(-1)
    return values(members).diff(dim=-1).gather(-1, rank)


def path_mean(gradients: Callable[[Tensor], Tensor], points: int, pieces: int = 1) -> Float[Tensor, "*batch"]:
    """The mean along the path of what ``gradients`` gives at points ``(G,)`` of it as ``(..., G)``; in double precision.

    Args:
        gradients: of the game.
        points: of Gauss and Legendre, for each piece of the path.
        pieces: of equal length.

    >>> round(float(path_mean(lambda alphas: alphas**3, 2)), 6)
    0.25
    """
    nodes, weights = gauss_legendre(points)
    mean: Tensor = torch.zeros((), dtype=torch.float64)
    for piece in range(pieces):
        found = gradients((nodes + piece) / pieces)
        mean = mean.to(found.device) + found.double() @ (weights / pieces).to(found.device)
    return mean
