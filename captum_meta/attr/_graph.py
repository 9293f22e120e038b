"""Attributions that carry gradients: to inputs that require one and, with ``create_graph``, to the model.

Captum's Integrated Gradients are averages of gradients, which are constants, times (input - baseline), which carries a
gradient where the input requires one. With ``create_graph`` the averages carry one as well, so that a loss of attributions
trains the model (Erion et al., *Improving performance of deep learning models with axiomatic attribution priors and expected
gradients*, 2021). Then gradients are taken at points that do not depend on the model, and what their quadrature misses is
shared out by the size of the attributions: everything that is returned is differentiated.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._model import untouched, wide
from captum_meta.attr._drawn_paths import DrawnPaths
from captum_meta.attr._draws import Draws, expected_difference
from captum_meta.attr._incomplete import BEGINNING, INCONSISTENT, incompletable_rows, unexplained_rows, warn_of_rows
from captum_meta.estimators.path_sample import certain
from captum_meta.evidence.path import check_real
from captum_meta.games import Game
from captum_meta.games.differentiated import Differentiated
from captum_meta.games.players import join
from captum_meta.nn.explainer import gap_shares

STEPS = 8
Parts = tuple[Tensor, ...]


def carry_gradient(*tensors: Any) -> bool:
    """Whether results computed from these tensors carry a gradient; numbers among them are ignored."""
    return torch.is_grad_enabled() and any(isinstance(part, Tensor) and part.requires_grad for part in tensors)


def filled(inputs: Parts, baselines: tuple[Any, ...]) -> Parts:
    """Baselines as tensors of the inputs' shapes, with their graph."""
    pairs = zip(inputs, baselines, strict=True)
    return tuple((b.to(x) if isinstance(b, Tensor) else torch.full_like(x, b)).expand_as(x) for x, b in pairs)


def differences(inputs: Parts, baselines: tuple[Any, ...]) -> Parts:
    """Inputs minus baselines, with their graph."""
    return tuple(wide(x) - wide(b) for x, b in zip(inputs, filled(inputs, baselines), strict=True))


def integrated(
    game: Game, model: Differentiated, ends: Parts, starts: Parts, n_steps: int, method: str, multiply: bool
) -> tuple[Parts, Tensor]:
    """Integrated Gradients in the shapes of the inputs, and their sums minus the change of f, ``(B,)``.

    ``game`` is the model between the same ends, without a graph.
    """
    check_real(ends)
    points, weights = (part(n_steps) for part in _captum.approximation_parameters(method)[::-1])
    with untouched(model.forward_func, ends[0].device), torch.enable_grad():
        apart, first, last = differences(ends, starts), model.values(starts), model.values(ends)
        missing = ~join(apart).isfinite()
        known = tuple(torch.where(part.isfinite(), part, 0.0) for part in apart)
        averages, sums, curve = tuple(torch.zeros_like(part) for part in apart), [], []
        for point, weight in zip(points, weights, strict=True):
            gradients, values = model.gradients_and_values(between(starts, apart, float(point)))
            averages = tuple(a + float(weight) * g for a, g in zip(averages, gradients, strict=True))
            sums.append(join(g.detach() * d.detach() for g, d in zip(gradients, known, strict=True)).sum(1))
            curve.append((values - first).detach())
        change = last - first
        if not multiply:
            return averages, join(averages).sum(1) - change
        plain = join(a * d for a, d in zip(averages, known, strict=True))
        along = torch.tensor(points, device=plain.device).clamp(BEGINNING, 1 - BEGINNING).expand(len(plain), -1)
        total = change.detach()
        rows = _uncompleted_rows(game, along, torch.stack(sums, 1), torch.stack(curve, 1), total, plain.detach())
        size = torch.maximum(first.detach().abs(), last.detach().abs())
        jump = torch.zeros_like(change)
        if bool(missing.any()):
            jump = torch.where(missing.any(1), model.values(between(starts, apart, BEGINNING)) - first, 0.0)
        completed = _completed(plain, change - jump, size) + gap_shares(missing.to(jump), missing) * jump.unsqueeze(1)
        values = completed.index_copy(0, rows, plain[rows].to(completed))
        parts = values.split([x[0].numel() for x in ends], dim=1)
        shaped = tuple(part.reshape(d.shape).to(d.dtype) for part, d in zip(parts, apart, strict=True))
        return shaped, values.sum(1) - change


def drawn(
    inputs: Parts, game: Game, distribution: Parts, stdevs: tuple[float, ...], n_samples: int, seed: int, multiply: bool
) -> Tensor:
    """Expected gradients ``(B, M)`` of inputs with their graph, from the same draws as without one."""
    game = game.of(replace(game.batch, inputs=inputs))
    with untouched(game.batch.forward_func, game.device), torch.enable_grad():
        paths = DrawnPaths.of(game, distribution, stdevs, n_samples, seed)
        batch = paths.standing(game, paths.middles)
        model = Differentiated(batch.forward_func, batch.target, batch.extra or ())
        gradients, change = join(model.gradients(paths.middles)), model.values(paths.ends) - model.values(paths.starts)
        delta, expected = join(paths.differences), expected_difference(game, distribution)
        draws = Draws(game, distribution, stdevs, n_samples, expected, delta, change, gradients, paths)
        if not multiply:
            return draws.average_gradient()
        warn_of_rows(draws.inconsistent, INCONSISTENT)
        return draws.completed()


def refuse_with_graph(**given: Any) -> None:
    """``ValueError`` for arguments that ``create_graph=True`` does not support."""
    for name, value in given.items():
        if value is not None and value is not False:
            raise ValueError(f"{name} and create_graph=True were both passed: leave one of them out.")


def _uncompleted_rows(game: Game, points: Tensor, sums: Tensor, curve: Tensor, total: Tensor, plain: Tensor) -> Tensor:
    """Indices of rows that keep the quadrature ``plain (B, E)``: all if they act on each other.

    Args:
        game, points, sums, curve, total: as of :func:`~captum_meta.evidence.consistency.inconsistent_rows`.
    """
    if len(total) > 1 and game.evaluation.together is None:
        game.at(torch.ones(1))
    if game.together:
        return torch.arange(len(total), device=total.device)
    return incompletable_rows(game, total, unexplained_rows(game, points, sums, curve, total, plain))


def between(starts: Parts, apart: Parts, point: float) -> Parts:
    """A point of the paths from ``starts`` to ``starts + apart``."""
    return tuple((wide(b) + point * d).to(b.dtype) for b, d in zip(starts, apart, strict=True))


def _completed(values: Tensor, change: Tensor, size: Tensor) -> Tensor:
    """Attributions ``(B, M)`` whose sums are the changes ``(B,)`` of f, up to the rounding of an f of ``size`` ``(B,)``."""
    everyone = torch.ones_like(values, dtype=torch.bool)
    gap = certain(change - values.sum(1), size, torch.finfo(change.dtype).eps)
    return values + gap.unsqueeze(1) * gap_shares(values.abs(), everyone)
