"""A test of networks where rows have the border alone: coalitions of a few rows, which no explanation has read."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.attr._network_shares import SHARES
from captum_meta.estimators import plan_coalitions
from captum_meta.evidence import Game, row_keys
from captum_meta.nn.refinement import border_coalitions, judging_pairs
from captum_meta.types import Evidence

_PAIRS, _MOST_ROWS = 4, 64
_PART = 0.02
"""Evaluations of a test at most, as a part of those of the rows."""
_GRADIENTS = 9
"""Evaluations that a row's gradients cost."""
_SEED = 5
"""Of which rows are tested."""
_KEPT = 256
"""Rows by which shares are judged, those tested last."""
_SURE = 1.0
"""Standard errors of the gain of a share that are taken from it."""


class UnreadTest:
    """Errors of predicting unread pairs with each share of the networks.

    Each fit of the networks is tested once, by rows that are drawn by their keys.
    """

    def __init__(self) -> None:
        self.fits = 0
        self.roots = torch.zeros(0, len(SHARES), dtype=torch.float64)

    def add(self, fits: int, errors: Tensor) -> None:
        """Squared errors ``(R, W)`` of the networks after ``fits`` fits."""
        roots, self.fits = errors.sqrt().cpu(), fits
        self.roots = torch.cat([self.roots, roots[roots.isfinite().all(1)]])[-_KEPT:]

    def losses(self) -> Tensor:
        """Errors with each share above those without, with the standard error, ``(W,)``; infinite if untested."""
        changes = self.roots - self.roots[:, :1]
        if len(changes) < 2:
            return torch.where(torch.tensor(SHARES) == 0, 0.0, torch.inf)
        return changes.mean(0) + _SURE * changes.std(0) / len(changes) ** 0.5


class UnreadPairs(NamedTuple):
    """P pairs of coalitions for each of R rows of evidence.

    Attributes:
        rows: ``(R,)`` int64, their indices.
        members: ``(R, P, M)`` bool, one coalition of each pair.
        differences: ``(R, P)``, f of it less f of all other players.
    """

    rows: Tensor
    members: Tensor
    differences: Tensor


def unread_pairs(game: Game, evidence: Evidence, telling: Tensor) -> UnreadPairs | None:
    """The pairs that rows whose whole border was evaluated would be given next: of some of these rows, with all outputs.

    None where the rows are too few, or all pairs have been read.

    Args:
        game: the rows.
        evidence: of each row and output.
        telling: which of these may be tested.
    """
    coalitions, n_outputs = evidence.coalitions or border_coalitions(evidence), len(evidence.total) // game.n_rows
    read, keys = coalitions.members.shape[1], row_keys(game)
    fit = telling & (coalitions.measured.sum(-1) >= 2 * evidence.n_players)
    fit &= ~judging_pairs(coalitions, evidence.players).any(-1)
    free = fit.unflatten(0, (-1, n_outputs)).all(1).nonzero().flatten()
    count = min(_MOST_ROWS, int(_PART * len(free) * (_GRADIENTS + read)) // (2 * _PAIRS))
    if count == 0:
        return None
    some = free[uniform(keys[free], (), _SEED).argsort(stable=True)[:count]].sort().values
    rows = (some.unsqueeze(1) * n_outputs + torch.arange(n_outputs, device=some.device)).flatten()
    game, keys = game.take(some), keys[some]
    members = plan_coalitions(game.mask, read + 2 * _PAIRS, 0, keys)[0][:, read:]
    if members.shape[1] < 2 * _PAIRS:
        return None
    values = game.values(members).movedim(-1, 1).flatten(0, 1).to(evidence.total)
    return UnreadPairs(rows, members[:, ::2].repeat_interleave(n_outputs, 0), values[:, ::2] - values[:, 1::2])


def judges_itself(evidence: Evidence) -> bool:
    """Whether all rows have pairs beyond the border, each of which is predicted from all others."""
    return evidence.coalitions is not None and bool(judging_pairs(evidence.coalitions, evidence.players).any(-1).all())
