"""What the front ends of Integrated Gradients share, whether their players are inputs or activations of a layer."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta.attr._frontend import Frontend, output_dtype
from captum_meta.evidence import Game, measure_path
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
        delta = evidence.effects.sum(-2) @ _weights(n_steps, method).to(evidence.effects) - evidence.total
        return game.players.of_elements(values.to(output_dtype(game, values))), delta

    def _default_key(self, game: Game) -> Hashable:
        return (_DEFAULT_STEPS, "gausslegendre")

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        assert isinstance(key, tuple)
        return measure_path(game, _nodes(*key))[0]

    def _reference(self, game: Game) -> Tensor:
        """A long run of Captum's own quadrature, ``(N, M)``."""
        slopes = game.slopes(_nodes(_REFERENCE_STEPS, "gausslegendre").to(game.inputs[0].dtype))
        assert slopes is not None
        weights = _weights(_REFERENCE_STEPS, "gausslegendre").to(slopes[0])
        return (slopes[0].squeeze(-1) @ weights) * _difference(game)


def _nodes(n_steps: int, method: str) -> Tensor:
    """Captum's own points of the path for ``method``."""
    points = torch.tensor(_captum.approximation_parameters(method)[1](n_steps), dtype=torch.float64)
    return points.clamp(1e-6, 1 - 1e-6)


def _weights(n_steps: int, method: str) -> Tensor:
    return torch.tensor(_captum.approximation_parameters(method)[0](n_steps), dtype=torch.float64)


def _difference(game: Game) -> Tensor:
    return torch.cat([(x - b).flatten(1) for x, b in zip(game.inputs, game.baselines, strict=True)], dim=1)


def _multipliers(values: Tensor, slopes: Tensor, game: Game) -> Tensor:
    """Attributions over (input - baseline), and the average gradient where input and baseline are the same."""
    difference = _difference(game).to(values)
    same = difference == 0
    return torch.where(same, slopes.mean(-1).to(values), values / torch.where(same, 1.0, difference))
