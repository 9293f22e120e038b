"""Evidence of one explained model, measured within a budget."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional

from captum_meta.estimators import sample_coalitions
from captum_meta.evidence.rows import outputs_first, per_output, row_keys, with_elements
from captum_meta.evidence.shapley import ShapleyMeasurement
from captum_meta.games import Game
from captum_meta.types import LEAVE_ONE_OUT, Evidence

_GRADIENT_COST = 3
"""Evaluations that a gradient counts as."""


def measure_shapley(game: Game, n_samples: int | Tensor | None = None, seed: int = 0, border: bool = True) -> Evidence:
    """Gradients at baseline, midway and input, and coalitions, of every row of a game.

    Args:
        game: the explained model and the rows.
        n_samples: coalitions of each row, a number or ``(N,)``. None: the border, which are the 2M coalitions
            of one player and of all but one, where there are at most 256 players, else none. With 0, players whose gradient
            vanishes get their border all the same, with a warning.
        seed: of the coalitions sampled inside the border.
        border: whether it comes first in any case (see :class:`~captum_meta.evidence.shapley.ShapleyMeasurement`).

    Returns:
        Evidence ``(N * K, M, 5)``, with the K outputs of each row side by side. Three gradients, or two forwards where there
        is no gradient, and ``n_samples`` forwards per row.
    """
    measurement = ShapleyMeasurement(game, n_samples, seed, border)
    measurement.evaluate()
    return measurement.evidence()


def measure_support(
    game: Game, n_samples: int | Tensor | None, evaluations: int, seed: int = 0, border: bool = True
) -> Evidence:
    """Evidence of support rows as a query of ``n_samples`` coalitions has it, for learners that model f.

    Beside it each row has coalitions for so many ``evaluations``, among them all players and none: a third as many with f's
    gradient where every row has one, whose elements are known one by one, else with f alone.
    """
    evidence = measure_shapley(game, n_samples, seed, border)
    if not evaluations:
        return evidence
    evidence = with_elements(evidence, game)
    players = game.mask
    smooth = evidence.elements is not None and bool(evidence.measured[..., :LEAVE_ONE_OUT].any(-1).any(-1).all())
    smooth = smooth and game.players.apart
    count = evaluations // _GRADIENT_COST if smooth else evaluations
    members, planned = sample_coalitions(players, max(0, count - 2), 0, row_keys(game))
    members = torch.cat([members, players.unsqueeze(1), torch.zeros_like(players).unsqueeze(1)], dim=1)
    planned = functional.pad(planned, (0, 2), value=True)
    found = game.coalition_gradients(members) if smooth else None
    gradients, values = (None, game.values(members, planned)) if found is None else found
    worths = values - values[:, -1:]
    known = planned.unsqueeze(-1) & worths.isfinite()
    if gradients is not None:
        known &= gradients.isfinite().all(2).all(2)
        gradients = outputs_first(torch.where(known[:, :, None, None], gradients, 0.0))
    coalitions = per_output(members, torch.where(known, worths, 0.0), known)
    return replace(evidence, coalitions=replace(coalitions, gradients=gradients))
