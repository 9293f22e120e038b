"""The coalitions that a budget is spent on: the border, then the most informative ones, then all sizes by kernel mass.

The border (one player alone, or all but one) holds the coalitions of highest Shapley-kernel weight. A coalition and its
complement are always taken together: pairing removes the error of all interactions of even order (Covert and Lee 2021).
Up to as many as the hypercube posterior reads, the next ones are those of :mod:`captum_meta.estimators.design`, with the
players in an order of the row's own. Beyond, sizes are sampled in proportion to their kernel mass, and small sizes without
replacement, as in KernelSHAP.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.estimators.design import different_pairs, telling_coalitions
from captum_meta.estimators.kernel_sampling import other_pairs, sampled_pairs

MAX_TELLING = 1024
"""Most pairs that are chosen, the border's included: as many as the hypercube posterior reads."""
_FREE = 2
"""Pairs per player up to which rows of saturated models have no border, where it need not come first."""
_MOST_OF_ALL = 512
"""The same where all coalitions are evaluated: then the order only matters to rows that stop early."""


def plan_coalitions(
    players: Bool[Tensor, "N M"],
    budget: int | Tensor,
    seed: int,
    keys: Int64[Tensor, " N"],
    priority: Float[Tensor, "N M"] | None = None,
    freely: Bool[Tensor, " N"] | None = None,
) -> tuple[Bool[Tensor, "N S M"], Bool[Tensor, "N S"]]:
    """Choose the coalitions to evaluate for each row.

    Args:
        players: ``(N, M)`` bool, False for padding.
        budget: coalitions of each row, a number or ``(N,)``; the empty and the full one are not counted. A row never gets
            more than it has.
        seed: together with ``keys`` it determines what is sampled.
        keys: ``(N,)`` int64, one number per row; rows of equal keys and players get equal coalitions.
        priority: ``(N, M)``, which players come first where the budget does not cover the border; by default random.
        freely: ``(N,)`` bool, rows whose pairs are all chosen by information, without a border, up to 4M coalitions;
            of more, the first 2M coalitions are of these, and the border follows; by default none.

    Returns:
        ``members (N, S, M)`` bool and ``measured (N, S)`` bool, the latter False for padding; S <= budget. Coalitions come
        in pairs, each followed by its complement, and up to 2,048 the plan of a smaller budget is the first part of that of
        a larger one; not where there is no border. Only of an odd budget below 2M the last one stands alone.

    >>> members, measured = plan_coalitions(torch.ones(1, 3, dtype=torch.bool), 2, 0, torch.tensor([1]))
    >>> members.sum(-1).tolist()
    [[2, 1]]
    """
    return _of_each_row(players, budget, MAX_TELLING, seed, keys, priority, freely)


def sample_coalitions(
    players: Bool[Tensor, "N M"], budget: int | Tensor, seed: int, keys: Int64[Tensor, " N"]
) -> tuple[Bool[Tensor, "N S M"], Bool[Tensor, "N S"]]:
    """The border, then pairs drawn by their kernel mass alone, as KernelSHAP's least squares want them.

    Arguments and what is returned are as for :func:`plan_coalitions`.
    """
    return _of_each_row(players, budget, 0, seed, keys, None)


def _of_each_row(
    players: Bool[Tensor, "N M"],
    budget: int | Tensor,
    most_telling: int,
    seed: int,
    keys: Int64[Tensor, " N"],
    priority: Float[Tensor, "N M"] | None,
    freely: Bool[Tensor, " N"] | None = None,
) -> tuple[Bool[Tensor, "N S M"], Bool[Tensor, "N S"]]:
    """Plans of rows, whose players and budgets may differ."""
    n_rows, width = players.shape
    budgets = torch.as_tensor(budget, device=players.device).expand(n_rows)
    if bool((budgets < 0).any()):
        raise ValueError(f"The budget of coalitions must not be negative, got {int(budgets.min())}: pass 0 for none.")
    free = torch.zeros_like(budgets) if freely is None else freely.to(budgets)
    kinds, kind = torch.stack([players.sum(-1), budgets, free], dim=1).unique(dim=0, return_inverse=True)
    if priority is None:
        priority = uniform(keys, (width,), seed + 1)
    chosen = []
    for index, (size, count, is_free) in enumerate(kinds.tolist()):
        rows = (kind == index).nonzero().squeeze(-1)
        seats = players[rows].to(torch.uint8).argsort(dim=-1, descending=True, stable=True)[:, :size]
        chosen_pairs = _free_first if is_free else _border_first
        dense = _plan(size, count, most_telling, chosen_pairs, seed, keys[rows], priority[rows].gather(1, seats))
        members = torch.zeros(len(rows), dense.shape[1], width, dtype=torch.bool, device=players.device)
        members.scatter_(2, seats.unsqueeze(1).expand(dense.shape), dense)
        chosen.append((rows, members))
    longest = max((members.shape[1] for _, members in chosen), default=0)
    members = torch.zeros(n_rows, longest, width, dtype=torch.bool, device=players.device)
    measured = torch.zeros(n_rows, longest, dtype=torch.bool, device=players.device)
    for rows, part in chosen:
        members[rows, : part.shape[1]] = part
        measured[rows, : part.shape[1]] = True
    return members, measured


def _plan(
    n_players: int,
    budget: int,
    most_telling: int,
    first: Callable[[int, int], Bool[Tensor, "P M"]],
    seed: int,
    keys: Int64[Tensor, " N"],
    priority: Float[Tensor, "N M"],
) -> Bool[Tensor, "N S M"]:
    """``(N, S, M)`` coalitions for rows that all have ``n_players`` players.

    The first pairs, ``most_telling`` at most but all of the border, are those of ``first(n_players, count)``.
    """
    if n_players < 2:
        return torch.zeros(len(keys), 0, n_players, dtype=torch.bool, device=keys.device)
    everything = n_players < 60 and budget >= 2**n_players - 2
    if budget < 2 * n_players and not everything:
        return _partial_border(budget, priority)
    most = min(most_telling, _MOST_OF_ALL) if everything else most_telling
    chosen = first(n_players, min(budget // 2, max(most, n_players))).to(keys.device)
    inside = chosen[chosen.sum(-1) > 1]
    if everything:
        rest = other_pairs(n_players, inside, seed, keys)
    else:
        rest = sampled_pairs(n_players, budget // 2 - len(chosen), inside, seed, keys)
    border = chosen[:n_players] if bool((chosen[:n_players].sum(-1) == 1).all()) else chosen[:0]
    mixed = torch.cat([chosen[len(border) :].expand(len(keys), -1, -1), rest], dim=1)
    mixed = _in_own_order(mixed, seed, keys)
    return _with_complements(torch.cat([border.expand(len(keys), -1, -1), mixed], dim=1))


def _border_first(n_players: int, count: int) -> Bool[Tensor, "count M"]:
    """One coalition of each pair: each player alone, then the most informative ones beside the border."""
    border = torch.eye(n_players, dtype=torch.bool)[: 1 if n_players == 2 else n_players]
    return torch.cat([border, telling_coalitions(n_players, max(0, count - n_players))])


def _free_first(n_players: int, count: int) -> Bool[Tensor, "count M"]:
    """The same without a border up to 4M coalitions; beyond, only the first 2M of these come before it."""
    if count <= _FREE * n_players:
        return telling_coalitions(n_players, count, border=False)
    free = telling_coalitions(n_players, n_players, border=False)
    return different_pairs(torch.cat([free, _border_first(n_players, count)]))[:count]


def _in_own_order(members: Bool[Tensor, "N P M"], seed: int, keys: Int64[Tensor, " N"]) -> Bool[Tensor, "N P M"]:
    """Coalitions ``(N, P, M)`` with the players of each row in an order of its own."""
    seats = uniform(keys, (members.shape[-1],), seed + 2).argsort(dim=-1).unsqueeze(1)
    return members.gather(2, seats.expand(members.shape))


def _partial_border(budget: int, priority: Float[Tensor, "N M"]) -> Bool[Tensor, "N S M"]:
    """Both border coalitions of the players of highest priority; an odd one out is left out of the full coalition."""
    n_players = priority.shape[-1]
    first = priority.argsort(dim=-1, descending=True, stable=True)[:, : (budget + 1) // 2]
    pairs = _with_complements(~torch.nn.functional.one_hot(first, n_players).bool())
    return pairs[:, :budget]


def _with_complements(members: Bool[Tensor, "N P M"]) -> Bool[Tensor, "N S M"]:
    return torch.stack([members, ~members], dim=2).flatten(1, 2)
