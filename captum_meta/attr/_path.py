"""What the front ends of Integrated Gradients share, whether their players are inputs or activations of a layer."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta.attr._frontend import Frontend, of_inputs, plain_arithmetic
from captum_meta.evidence import Game, measure_path
from captum_meta.evidence.measure import path_slopes
from captum_meta.types import Evidence

_REFERENCE_STEPS = 200
_DEFAULT_STEPS = 10


class PathFrontend(Frontend):
    """Integrated Gradients from a few gradients."""

    kind = "path"
    multiplies_by_inputs: bool

    def _integrate(self, game: Game, n_steps: int, method: str) -> tuple[tuple[Tensor, ...], Tensor]:
        """Attributions in the shapes of the game's inputs, and the delta ``(N,)`` of Captum's quadrature at these steps."""
        evidence, slopes = measure_path(game, _nodes(n_steps, method))
        values = self._explain(self._viewed(evidence, game), (n_steps, method)).attributions
        if not self.multiplies_by_inputs:
            values = _multipliers(values, slopes, game)
        with plain_arithmetic(game.device):
            delta = evidence.effects.sum(-2) @ _weights(n_steps, method).to(evidence.effects) - evidence.total
        return of_inputs(values, game), delta

    def _game(self, inputs: Any, *others: Any) -> Game:
        return super()._game(real(inputs), *others)

    def _default_key(self, game: Game) -> Hashable:
        return (_DEFAULT_STEPS, "gausslegendre")

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        assert isinstance(key, tuple)
        return measure_path(game, _nodes(*key))[0]

    def _reference(self, game: Game) -> Tensor:
        """A long run of Captum's own quadrature, ``(N, M)``."""
        slopes, _ = path_slopes(game, _nodes(_REFERENCE_STEPS, "gausslegendre"))
        with plain_arithmetic(game.device):
            return (slopes @ _weights(_REFERENCE_STEPS, "gausslegendre").to(slopes)) * game.difference


def real(inputs: Any) -> Any:
    """Inputs with whole numbers as real ones, in the default precision: a path leads through what lies between."""
    if isinstance(inputs, tuple):
        return tuple(real(part) for part in inputs)
    whole = isinstance(inputs, Tensor) and not inputs.is_floating_point() and not inputs.is_complex()
    return inputs.to(torch.get_default_dtype()) if whole else inputs


def _nodes(n_steps: int, method: str) -> Tensor:
    """Captum's own points of the path for ``method``."""
    points = torch.tensor(_captum.approximation_parameters(method)[1](n_steps), dtype=torch.float64)
    return points.clamp(1e-6, 1 - 1e-6)


def _weights(n_steps: int, method: str) -> Tensor:
    return torch.tensor(_captum.approximation_parameters(method)[0](n_steps), dtype=torch.float64)


def _multipliers(values: Tensor, slopes: Tensor, game: Game) -> Tensor:
    """Attributions over (input - baseline), and the average gradient where input and baseline are the same."""
    difference = game.difference.to(values)
    same = difference == 0
    return torch.where(same, slopes.mean(-1).to(values), values / torch.where(same, 1.0, difference))
