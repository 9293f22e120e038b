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
from captum_meta.attr._incomplete import INCONSISTENT, UNKNOWN, warn_of_rows
from captum_meta.estimators import gauss_legendre
from captum_meta.evidence import row_keys
from captum_meta.evidence.path import check_output, inconsistent_rows, measured_slopes, path_evidence
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
    """Attributions ``(N, O, M)``, their sums less f(input) - mean f(background) and error estimates, both ``(N, O)``.

    Rows whose gradients are not those of f, and rows with a background row at which f is not finite, are not completed.

    Args:
        game: the explained model, the rows and the background rows; its O outputs come from the same forwards.
        n_steps: gradients of each row.
        multiply: False for the average gradient instead of its product with the differences.
        seed: of draws.
        explain: what a learner makes of the path from one background row.
    """
    everyone, nobody = game.ends()
    check_output(game.game, everyone.unsqueeze(1))
    total = everyone.double() - torch.einsum("nko,k->no", nobody.double(), game.weights)
    rows = torch.arange(game.n_rows, device=game.device)
    parts = []
    numbers = n_steps * sum(part[0].numel() for part in game.inputs) * everyone.shape[1]
    for some in rows.split(max(1, _MAX_NUMBERS // numbers)):
        part = game.take(some)
        if n_steps < _FEWEST * game.count:
            found = _drawn(part, n_steps, multiply, seed)
        else:
            found = _of_each(part, (everyone[some], nobody[some]), n_steps // game.count, multiply, explain)
        parts.append([torch.stack(each, dim=1) for each in zip(*found, strict=True)])
    values, errors, strange = (torch.cat(found) for found in zip(*parts, strict=True))
    unknown = ~total.isfinite()
    strange = strange & ~unknown
    warn_of_rows(unknown.any(1), UNKNOWN)
    warn_of_rows(strange.any(1), INCONSISTENT)
    errors = errors.masked_fill(strange | unknown, torch.nan)
    if multiply:
        gap = (total - values.sum(-1, dtype=torch.float64)).to(values).masked_fill(strange | unknown, 0.0)
        values = values + gap_shares(values.abs(), torch.ones_like(values, dtype=torch.bool)) * gap.unsqueeze(-1)
    return values, values.sum(-1) - total.to(values), errors


def _drawn(game: MeanGame, count: int, multiply: bool, seed: int) -> list[tuple[Tensor, Tensor, Tensor]]:
    """From one gradient for each of ``count`` draws of a background row and a point of the path from it; of each output."""
    keys, background, inputs = row_keys(game.game), join(game.background), join(game.inputs)
    numbers = uniform(keys, (3, count), seed)
    behind = spread_over(background, inputs, numbers[:, :2])
    alphas = (torch.arange(count, device=game.device) + numbers[:, 2]) / count
    one = game.with_one(behind)
    slopes = measured_slopes(one, one.slopes(alphas.reshape(-1, 1)))[0].squeeze(-2)
    found = []
    for of_output in measured(slopes, count).unbind(-1):
        draws = Draws(
            game=game.game,
            distribution=game.background,
            stdevs=(0.0,) * len(game.inputs),
            n_samples=count,
            expected=inputs - background.mean(0, keepdim=True),
            delta=one.difference,
            change=torch.zeros_like(of_output[:, 0]),
            slopes=of_output,
        )
        values = draws.expected_gradients[0] if multiply else draws.average_gradient()
        error = (1 + _FEW / count) * draws.error(values, multiply)
        found.append((values, error, torch.zeros_like(error, dtype=torch.bool)))
    return found


def _of_each(
    game: MeanGame, ends: tuple[Tensor, Tensor], count: int, multiply: bool, explain: Explain
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """From ``count`` gradients on the path from each background row; of each output.

    f at the paths' ends is ``ends``, ``(N, O)`` and ``(N, K, O)``.
    """
    n_rows, n_background = ends[1].shape[:2]
    drawn = torch.arange(n_background, device=game.device).expand(n_rows, -1)
    one, (nodes, weights) = game.with_one(drawn), gauss_legendre(count)
    slopes, curves = measured_slopes(one, one.slopes(nodes))
    known = torch.stack([ends[1].flatten(0, 1), ends[0].repeat_interleave(n_background, 0)], dim=1)
    found = []
    for slope, curve, of_ends in zip(slopes.unbind(-1), curves.unbind(-1), known.unbind(-1), strict=True):
        evidence, slope = path_evidence(one, nodes, slope, curve, of_ends)
        values = slope @ weights.to(slope)
        strange = inconsistent_rows(game.game, evidence.points, evidence.effects.sum(1), evidence.curve, evidence.total)
        if multiply:
            plain = strange | ~evidence.total.isfinite()
            values = torch.where(plain.unsqueeze(1), values * one.difference, explain(evidence))
        mean = values.unflatten(0, (n_rows, -1)).mean(1)
        squares = (error_of(evidence).to(values) * values.square().sum(1)).unflatten(0, (n_rows, -1)).mean(1)
        error = squares / mean.square().sum(1).clamp(min=torch.finfo(mean.dtype).tiny)
        found.append((mean, error, strange.unflatten(0, (n_rows, -1)).any(1)))
    return found
