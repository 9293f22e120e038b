"""Dummy players: no effect of theirs was seen, and no larger coalition contradicts this."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from captum_meta._random import coalition_keys


def acting(
    still: Bool[Tensor, "N M K"],
    members: Bool[Tensor, "N S M"],
    worths: Float[Tensor, "N S K"],
    measured: Bool[Tensor, "N S K"],
    noise: Float[Tensor, "N K"],
) -> Bool[Tensor, "N M K"]:
    """Which players without an effect of their own change f in larger coalitions.

    Coalitions that are alike but for such players have the same worth if these are dummies. Where worths differ, the players
    are to blame in whom two such coalitions differ, first those of the pairs that differ in fewest.

    Args:
        still: ``(N, M, K)`` bool, players of whom no effect was seen.
        members: ``(N, S, M)`` bool, coalitions; no one and everyone should be among them.
        worths, measured: ``(N, S, K)``, f of the coalitions, and whether it is known.
        noise: ``(N, K)``, differences of worths that are none.

    Returns:
        ``(N, M, K)`` bool.

    >>> members = torch.tensor([[[0, 0, 0], [0, 1, 0], [1, 0, 0], [1, 1, 0]]]).bool()
    >>> worths = torch.tensor([[[0.0], [0.0], [1.0], [3.0]]])  # the second player acts beside the first
    >>> still = torch.tensor([[[False], [True], [True]]])
    >>> acting(still, members, worths, torch.ones(1, 4, 1).bool(), torch.zeros(1, 1)).flatten().tolist()
    [False, True, False]
    """
    found = torch.zeros_like(still)
    for row, k in _contradicted(still, members, worths, measured, noise).nonzero().tolist():
        seen = measured[row, :, k]
        found[row, :, k] = _blamed(still[row, :, k], members[row, seen], worths[row, seen, k], noise[row, k])
    return found


def _contradicted(
    still: Bool[Tensor, "N M K"],
    members: Bool[Tensor, "N S M"],
    worths: Float[Tensor, "N S K"],
    measured: Bool[Tensor, "N S K"],
    noise: Float[Tensor, "N K"],
) -> Bool[Tensor, "N K"]:
    """Whether coalitions that are alike but for the still players have different worths, ``(N, K)``."""
    keys = torch.stack([coalition_keys(members & ~some.unsqueeze(1)) for some in still.unbind(-1)], dim=-1)
    own = torch.arange(keys.shape[1], device=keys.device).reshape(1, -1, 1)
    keys = torch.where(measured, keys, own)
    order = keys.argsort(dim=1, stable=True)
    alike = keys.gather(1, order).diff(dim=1) == 0
    return (alike & (worths.gather(1, order).diff(dim=1).abs() > noise.unsqueeze(1))).any(1)


def _blamed(still: Tensor, members: Tensor, worths: Tensor, noise: Tensor) -> Tensor:
    """The players ``(M,)`` that act, by coalitions ``(S, M)``."""
    blamed = torch.zeros_like(still)
    apart = (worths - worths.unsqueeze(1)).abs() > noise
    while bool(still.any()):
        keys = coalition_keys(members & ~still)
        pairs = ((keys == keys.unsqueeze(1)) & apart).nonzero()
        if len(pairs) == 0:
            break
        differ = members[pairs[:, 0]] ^ members[pairs[:, 1]]
        sizes = differ.sum(1)
        fewest = differ[sizes == sizes.min()].any(0)
        blamed, still = blamed | fewest, still & ~fewest
    return blamed
