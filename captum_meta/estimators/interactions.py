r"""Interactions of pairs of players, exactly, from the worth of every coalition: SII, k-SII, STII, FSII, BII of order two.

With the multilinear extension F of the game (Owen 1972), and all of its arguments at t, each of these indices is

.. math:: I_{ij} = \int_0^1 w(t)\, \partial_i \partial_j F(t, \dots, t)\, dt, \quad
    I_i = \int_0^1 u(t)\, \partial_i F(t, \dots, t)\, dt,

where only the weights differ:

========  ==================  ==============  =================================================
index     w(t)                u(t)
========  ==================  ==============  =================================================
SII       1                   1               Grabisch and Roubens 1999; Shapley values alone
k-SII     1                   1               less half of the player's pairs; Bordt and von Luxburg 2023
STII      2 (1 - t)           at t = 0 alone  Sundararajan, Dhamdhere and Agarwal 2020
FSII      6 t (1 - t)         4 - 6 t         Tsai, Yeh and Ravikumar 2023
BII       at t = 1/2 alone    at t = 1/2      Banzhaf interactions and values; Grabisch and Roubens 1999
========  ==================  ==============  =================================================

Main effects and pairs of k-SII, STII and FSII sum to f(everyone) - f(no one).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.estimators.exact import all_coalitions
from captum_meta.estimators.quadrature import gauss_legendre

Index = Literal["k-SII", "SII", "STII", "FSII", "BII"]
INDICES: tuple[str, ...] = get_args(Index)
EFFICIENT = ("k-SII", "STII", "FSII")
"""Indices whose main effects and pairs sum to f(everyone) - f(no one)."""
_MAX_NODES = 16
_Weight = Callable[[Tensor], Tensor]
_DENSITIES: dict[str, tuple[_Weight | float, _Weight | float]] = {
    "k-SII": (torch.ones_like, torch.ones_like),
    "SII": (torch.ones_like, torch.ones_like),
    "STII": (0.0, lambda t: 2 * (1 - t)),
    "FSII": (lambda t: 4 - 6 * t, lambda t: 6 * t * (1 - t)),
    "BII": (0.5, 0.5),
}
"""u and w of the module's table: functions of t, or the only t that counts."""


@dataclass(frozen=True)
class InteractionRule:
    """An index as sums over points t of the diagonal, exact for up to 30 players; all float64.

    Attributes:
        index: its name.
        main: points ``(Q,)`` and their weights ``(Q,)`` in the integral over first derivatives.
        pairs: the same for second derivatives.
    """

    index: str
    main: tuple[Float[Tensor, " Q"], Float[Tensor, " Q"]]
    pairs: tuple[Float[Tensor, " A"], Float[Tensor, " A"]]

    @classmethod
    def of(cls, index: str, n_players: int) -> InteractionRule:
        """The rule of an index for so many players.

        Raises:
            ValueError: if there is no such index.
        """
        if index not in _DENSITIES:
            raise ValueError(f"index is {index!r}: pass one of {', '.join(repr(name) for name in INDICES)}.")
        nodes, weights = gauss_legendre(min(_MAX_NODES, n_players // 2 + 1))
        nodes, weights = nodes.double(), weights.double()

        def points(density: _Weight | float) -> tuple[Tensor, Tensor]:
            if callable(density):
                return nodes, weights * density(nodes)
            return nodes.new_tensor([density]), nodes.new_ones(1)

        main, pairs = _DENSITIES[index]
        return cls(index, points(main), points(pairs))

    def joined(self, main: Float[Tensor, "*batch M"], pairs: Float[Tensor, "*batch M M"]) -> Float[Tensor, "*batch M M"]:
        """Main effects ``(*batch, M)`` on the diagonal, pairs ``(*batch, M, M)`` off it.

        ``main`` are the integrals of the module's formula: for k-SII, Shapley values.
        """
        apart = pairs - torch.diag_embed(pairs.diagonal(dim1=-2, dim2=-1))
        if self.index == "k-SII":
            main = main - apart.sum(-1) / 2
        return apart + torch.diag_embed(main)


def interactions(worths: Float[Tensor, "*batch S"], index: str = "k-SII") -> Float[Tensor, "*batch M M"]:
    r"""Exact interactions of pairs, and main effects, of games given by the worth of every coalition.

    .. math:: I_{ij} = \sum_{S \subseteq N \setminus ij} p_{|S|}
        (v(S \cup ij) - v(S \cup i) - v(S \cup j) + v(S)), \quad p_s = \int_0^1 w(t)\, t^s (1 - t)^{M - 2 - s} dt

    Args:
        worths: ``(*batch, 2**M)``, ordered as :func:`all_coalitions`; a constant shift does not matter.
        index: "k-SII", "SII", "STII", "FSII" or "BII".

    Returns:
        ``(*batch, M, M)`` in the units of ``worths``: pairs off the diagonal, main effects on it.

    Raises:
        ValueError: if there is no such index, or the last dimension is not a power of two.

    >>> interactions(torch.tensor([0.0, 1.0, 3.0, 6.0]), "SII").tolist()  # 1 + 3, and 2 for both together
    [[2.0, 2.0], [2.0, 4.0]]
    """
    n_players = worths.shape[-1].bit_length() - 1
    if worths.shape[-1] != 2**n_players:
        raise ValueError(
            f"Exact interactions need the worths of all 2**M coalitions, got {worths.shape[-1]}: "
            "pass one worth for each row of all_coalitions(M)."
        )
    rule = InteractionRule.of(index, n_players)
    if n_players == 0:
        return worths.new_zeros(*worths.shape[:-1], 0, 0)
    members = all_coalitions(n_players, worths.device).double()
    sizes = members.sum(-1).long()
    values = worths.double()
    with_one, without = (part[sizes] for part in _by_size(rule.main, n_players, 1, worths.device))
    main = (values * (with_one + without)) @ members - (values * without).sum(-1, keepdim=True)
    both, one, none = (part[sizes] for part in _by_size(rule.pairs, n_players, 2, worths.device))
    each = (values * (one + none)) @ members
    pairs = torch.einsum("...s,si,sj->...ij", values * (both + 2 * one + none), members, members)
    pairs = pairs - each.unsqueeze(-1) - each.unsqueeze(-2) + (values * none).sum(-1)[..., None, None]
    return rule.joined(main, pairs).to(worths)


def _by_size(
    rule: tuple[Float[Tensor, " Q"], Float[Tensor, " Q"]], n_players: int, order: int, device: torch.device
) -> list[Float[Tensor, " sizes"]]:
    """Weights of coalitions by size ``(M + 1,)``: those with all ``order`` players in question, with one less, to none."""
    nodes, weights = rule
    others = n_players - order
    sizes = torch.arange(max(0, others) + 1).unsqueeze(-1)
    of_others = (nodes**sizes * (1 - nodes) ** (others - sizes)) @ weights if others >= 0 else torch.zeros(1).double()
    padded = torch.cat([of_others.new_zeros(order), of_others, of_others.new_zeros(order)])
    indices = torch.arange(n_players + 1)
    return [padded[(indices + order - inside).clamp(max=len(padded) - 1)].to(device) for inside in range(order, -1, -1)]
