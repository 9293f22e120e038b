"""Shapley values of games of which every coalition is known."""

from __future__ import annotations

from math import comb

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def all_coalitions(n_players: int, device: torch.device | str | None = None) -> Bool[Tensor, "S M"]:
    """All coalitions of ``n_players`` players as ``(2**M, M)`` bool; bit i of the row's number is player i.

    >>> all_coalitions(2).int().tolist()
    [[0, 0], [1, 0], [0, 1], [1, 1]]
    """
    numbers = torch.arange(2**n_players, device=device).unsqueeze(-1)
    return (numbers >> torch.arange(n_players, device=device)) & 1 == 1


def shapley_values(worths: Float[Tensor, "*batch S"]) -> Float[Tensor, "*batch M"]:
    r"""Exact Shapley values of games given by the worth of every coalition (Shapley 1953).

    .. math:: \phi_i = \sum_{S \not\ni i} \frac{|S|! (M - |S| - 1)!}{M!} (v(S \cup i) - v(S))

    Args:
        worths: ``(*batch, 2**M)``, ordered as :func:`all_coalitions`; a constant shift does not matter.

    Returns:
        ``(*batch, M)`` in the units of ``worths``.

    Raises:
        ValueError: if the last dimension is not a power of two.

    >>> shapley_values(torch.tensor([0.0, 1.0, 3.0, 4.0]))
    tensor([1., 3.])
    """
    n_players = worths.shape[-1].bit_length() - 1
    if worths.shape[-1] != 2**n_players:
        raise ValueError(
            f"Exact Shapley values need the worths of all 2**M coalitions, got {worths.shape[-1]}: "
            "pass one worth for each row of all_coalitions(M)."
        )
    members = all_coalitions(n_players, worths.device)
    weights = torch.tensor(
        [1 / (n_players * comb(n_players - 1, size)) for size in range(n_players)] + [0.0],
        dtype=worths.dtype,
        device=worths.device,
    )
    sizes = members.sum(-1)
    joining = torch.where(members, weights[(sizes - 1).clamp(min=0)].unsqueeze(-1), -weights[sizes].unsqueeze(-1))
    return worths @ joining
