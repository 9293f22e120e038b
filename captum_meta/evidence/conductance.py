"""Evidence of conductances: gradients that pass through a layer, or one of its neurons, along the path of the inputs."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from captum_meta.estimators.line_integrals import antiderivative, rates, trapezia
from captum_meta.estimators.quadrature import MAX_INTERPOLATED
from captum_meta.evidence.path import measure_bent_path, measure_path
from captum_meta.games import Game
from captum_meta.types import Evidence

_ALIKE, _ROUNDING = 1e-3, 8
"""Values differ if by more than this part of f's change, and this many units of their precision."""


def measure_layer(game: Game, ends: Tensor, points: Tensor | None, n_steps: int) -> tuple[Evidence, Tensor, Tensor]:
    """Evidence of the elements of a layer, whose integrals are its conductance, and the trapezia of these ``(N, E)``.

    Args:
        game: of a :class:`~captum_meta.games.layer_path.ReadLayers`.
        ends: ``(N, E, 2)``, what the layers give at the baseline and at the input.
        points: of the path, for all rows; None for ``n_steps`` of each row's own.

    Returns:
        Evidence ``(N, E, G)`` whose total is f(input) - f(baseline), ``(N, E)``, and the larger size of f at both ends,
        ``(N,)``.
    """
    found, along, size = _measured(game, points, n_steps)
    count = ends.shape[1]
    gradients, given = along[:, :count], along[:, count : 2 * count]
    values = torch.cat([ends[..., :1], given, ends[..., 1:]], dim=-1)
    if found.points.shape[1] > MAX_INTERPOLATED:
        effects = torch.zeros_like(gradients)
    else:
        effects = (gradients * rates(found.points, values)).to(gradients)
    return _of(found, effects), trapezia(gradients, values).to(gradients), size


def measure_neuron(game: Game, ends: Tensor, points: Tensor | None, n_steps: int) -> tuple[Evidence, Tensor]:
    """Evidence of the inputs' elements, whose integrals are a neuron's conductance, and the gradients ``(N, M, G)``.

    Args:
        game: of a :class:`~captum_meta.games.layer_path.NeuronConductanceModel`.
        ends: ``(N, 1, 2)``, what the neuron gives at the baseline and at the input.
        points, n_steps: as for :func:`measure_layer`.

    Returns:
        Evidence ``(N, M, G)`` whose total is the integral of the output's gradient over what the neuron gives.
    """
    found, along, _ = _measured(game, points, n_steps)
    effects = found.effects[:, 2:]
    factor, given = along[:, :1], along[:, 1:2]
    values = torch.cat([ends[..., :1], given, ends[..., 1:]], dim=-1)
    evidence = replace(_of(found, effects), measured=found.measured[:, 2:])
    if found.points.shape[1] > MAX_INTERPOLATED:
        evidence = replace(evidence, total=trapezia(factor, values).squeeze(1).to(effects))
    else:
        evidence = completed(evidence, (factor * rates(found.points, values)).squeeze(1))
    return evidence, along[:, 2:]


def completed(evidence: Evidence, sums: Tensor | None = None, where: Tensor | None = None) -> Evidence:
    """Evidence whose total and curve are the integrals of ``sums (N, G)``, of its own effects' if there are none.

    Only in the rows ``where (N,)``, if so asked.
    """
    curve, total = antiderivative(evidence.points, evidence.effects.sum(1) if sums is None else sums)
    if where is not None:
        curve, total = torch.where(where.unsqueeze(1), curve, evidence.curve), torch.where(where, total, evidence.total)
    return replace(evidence, curve=curve.to(evidence.effects), total=total.to(evidence.effects))


def same(values: Tensor, others: Tensor, changes: Tensor) -> Tensor:
    """Whether outputs ``(N,)`` are the same, next to changes of the output ``(N,)``."""
    rounding = _ROUNDING * torch.finfo(values.dtype).eps * others.abs()
    return (values - others).abs() <= _ALIKE * changes.abs() + rounding


def _measured(game: Game, points: Tensor | None, n_steps: int) -> tuple[Evidence, Tensor, Tensor]:
    return measure_bent_path(game, n_steps) if points is None else measure_path(game, points)


def _of(found: Evidence, effects: Tensor) -> Evidence:
    """The same path with other players, all of whom are measured."""
    measured = effects.isfinite()
    players = torch.ones_like(measured[..., 0])
    return replace(found, effects=torch.where(measured, effects, 0.0), measured=measured, players=players, inputs=None)
