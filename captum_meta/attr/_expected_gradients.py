"""Integrated Gradients of the mean over background rows, expected gradients: which gradients a row's budget is spent on.

Where there are two or more gradients for each background row, each has a quadrature of its own, which the change of f along
its path completes. With fewer, gradients are drawn: background rows and points of the paths are stratified, and differences
from the background rows, whose mean is known, are a control variate (:mod:`captum_meta.attr._draws`).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.attr._draws import Draws, measured, spread_over
from captum_meta.estimators import gauss_legendre
from captum_meta.evidence import path_slopes, row_keys
from captum_meta.evidence.path import path_evidence
from captum_meta.evidence.path_rounds import error_of
from captum_meta.games import MeanGame
from captum_meta.games.players import join
from captum_meta.nn.explainer import gap_shares
from captum_meta.types import Evidence

_FEWEST = 2
"""Gradients of each background row from which each has a quadrature."""
_FEW = 5.0
"""Draws so few that their spread tells half of what it would of many."""
_MAX_NUMBERS = 2**24
Explain = Callable[[Evidence], Tensor]
"""Attributions ``(R, M)`` of paths ``(R, M, G)`` that were measured."""


def expected_gradients(
    game: MeanGame, n_steps: int, multiply: bool, seed: int, explain: Explain
) -> tuple[Tensor, Tensor, Tensor]:
    """Attributions ``(N, M)``, their sums less f(input) - mean f(background) ``(N,)``, and error estimates ``(N,)``.

    Args:
        game: the explained model, whose outputs are one number for each row, the rows and the background rows.
        n_steps: gradients of each row.
        multiply: False for the average gradient instead of its product with the differences.
        seed: of draws.
        explain: what a learner makes of the path from one background row.
    """
    everyone, nobody = game.ends()
    assert everyone.shape[1] == 1, (
        "Target not provided when necessary, cannot take gradient with respect to multiple outputs: pass target=."
    )
    ends = everyone[:, 0], nobody[:, :, 0]
    total = ends[0].double() - ends[1].double() @ game.weights
    rows = torch.arange(game.n_rows, device=game.device)
    parts = []
    for some in rows.split(max(1, _MAX_NUMBERS // (n_steps * sum(part[0].numel() for part in game.inputs)))):
        part = game.take(some)
        if n_steps < _FEWEST * game.count:
            parts.append(_drawn(part, n_steps, multiply, seed))
        else:
            parts.append(_of_each(part, (ends[0][some], ends[1][some]), n_steps // game.count, multiply, explain))
    values, errors = (torch.cat(found) for found in zip(*parts, strict=True))
    if multiply:
        gap = (total - values.sum(1, dtype=torch.float64)).to(values)
        values = values + gap_shares(values.abs(), torch.ones_like(values, dtype=torch.bool)) * gap.unsqueeze(1)
    return values, values.sum(1) - total.to(values), errors


def _drawn(game: MeanGame, count: int, multiply: bool, seed: int) -> tuple[Tensor, Tensor]:
    """From one gradient for each of ``count`` draws of a background row and a point of the path from it."""
    keys, background, inputs = row_keys(game.game), join(game.background), join(game.inputs)
    numbers = uniform(keys, (3, count), seed)
    behind = spread_over(background, inputs, numbers[:, :2])
    alphas = (torch.arange(count, device=game.device) + numbers[:, 2]) / count
    one = game.with_one(behind)
    slopes = path_slopes(one, alphas.reshape(-1, 1))[0].squeeze(-1)
    draws = Draws(
        game=game.game,
        distribution=game.background,
        stdevs=(0.0,) * len(game.inputs),
        n_samples=count,
        expected=inputs - background.mean(0, keepdim=True),
        delta=one.difference,
        change=torch.zeros_like(slopes[:, 0]),
        slopes=measured(slopes, count),
    )
    values = draws.expected_gradients()[0] if multiply else draws.average_gradient()
    return values, (1 + _FEW / count) * draws.error(values, multiply)


def _of_each(
    game: MeanGame, ends: tuple[Tensor, Tensor], count: int, multiply: bool, explain: Explain
) -> tuple[Tensor, Tensor]:
    """From ``count`` gradients on the path from each background row; ``ends (N,)`` and ``(N, K)`` are f at their ends."""
    n_rows, n_background = ends[1].shape
    drawn = torch.arange(n_background, device=game.device).expand(n_rows, -1)
    one, (nodes, weights) = game.with_one(drawn), gauss_legendre(count)
    known = torch.stack([ends[1].flatten(), ends[0].repeat_interleave(n_background)], dim=1)
    evidence, slopes = path_evidence(one, nodes, *path_slopes(one, nodes), known)
    values = explain(evidence) if multiply else slopes @ weights.to(slopes)
    mean = values.unflatten(0, (n_rows, -1)).mean(1)
    squares = (error_of(evidence).to(values) * values.square().sum(1)).unflatten(0, (n_rows, -1)).mean(1)
    return mean, squares / mean.square().sum(1).clamp(min=torch.finfo(mean.dtype).tiny)
