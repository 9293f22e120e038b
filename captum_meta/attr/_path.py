"""What the front ends of Integrated Gradients share, whether their players are inputs or activations of a layer."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta.attr._frontend import Frontend, of_inputs, plain_arithmetic
from captum_meta.estimators import gauss_legendre, interval_weights
from captum_meta.evidence import Game, measure_bent_path, measure_path, path_slopes
from captum_meta.types import Evidence

_REFERENCE_STEPS = 200
_DEFAULT_STEPS = 10


class PathFrontend(Frontend):
    """Integrated Gradients from a few gradients."""

    kind = "path"
    multiplies_by_inputs: bool

    def _integrate(self, game: Game, n_steps: int, method: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Attributions in the shapes of the game's inputs, and the delta ``(N,)`` of the quadrature alone."""
        evidence, slopes = _measure(game, n_steps, method)
        weights = _weights(evidence, n_steps, method)
        values = self._explain(self._viewed(evidence, game), (n_steps, method)).attributions
        if not self.multiplies_by_inputs:
            values = _multipliers(values, slopes, weights, game)
        with plain_arithmetic(game.device):
            delta = (evidence.effects.sum(-2) * weights).sum(-1) - evidence.total
        return of_inputs(values, game), delta

    def _game(self, inputs: Any, *others: Any) -> Game:
        return super()._game(real(inputs), *others)

    def _default_key(self, game: Game) -> Hashable:
        return (_DEFAULT_STEPS, "gausslegendre")

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        assert isinstance(key, tuple)
        return _measure(game, *key)[0]

    def _reference(self, game: Game) -> Tensor:
        """A long run of Captum's own quadrature, ``(N, M)``."""
        nodes, weights = gauss_legendre(_REFERENCE_STEPS)
        slopes, _ = path_slopes(game, nodes)
        with plain_arithmetic(game.device):
            return (slopes @ weights.to(slopes)) * game.difference


def real(inputs: Any) -> Any:
    """Inputs with whole numbers as real ones, in the default precision: a path leads through what lies between."""
    if isinstance(inputs, tuple):
        return tuple(real(part) for part in inputs)
    whole = isinstance(inputs, Tensor) and not inputs.is_floating_point() and not inputs.is_complex()
    return inputs.to(torch.get_default_dtype()) if whole else inputs


def _measure(game: Game, n_steps: int, method: str) -> tuple[Evidence, Tensor]:
    """Gradients at nodes of each row's own for ``"gausslegendre"``, at Captum's for its other methods."""
    assert n_steps > 0, f"n_steps is {n_steps}: pass at least one gradient a row."
    if method == "gausslegendre":
        return measure_bent_path(game, n_steps)
    points = torch.tensor(_captum.approximation_parameters(method)[1](n_steps), dtype=torch.float64)
    return measure_path(game, points.clamp(1e-6, 1 - 1e-6))


def _weights(evidence: Evidence, n_steps: int, method: str) -> Tensor:
    """Weights of the quadrature alone, ``(N, n_steps)`` or ``(n_steps,)``."""
    if method == "gausslegendre":
        return interval_weights(evidence.points).sum(-2).to(evidence.effects)
    return torch.tensor(_captum.approximation_parameters(method)[0](n_steps)).to(evidence.effects)


def _multipliers(values: Tensor, slopes: Tensor, weights: Tensor, game: Game) -> Tensor:
    """Attributions over (input - baseline), and the average gradient where input and baseline are the same."""
    difference = game.difference.to(values)
    same = difference == 0
    return torch.where(
        same, (slopes * weights.unsqueeze(-2)).sum(-1).to(values), values / torch.where(same, 1.0, difference)
    )
