"""What the two Shapley front ends share."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from captum_meta.attr._frontend import Frontend, output_dtype
from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.evidence import Game, measure_shapley
from captum_meta.nn import Prediction
from captum_meta.types import Evidence

_EXACT_PLAYERS = 12
_REFERENCE_COALITIONS = 32
_DEFAULT_PLAYERS = 32


class ShapleyFrontend(Frontend):
    """Shapley values from three gradients and a budget of coalitions."""

    kind = "shapley"

    def _predict(self, game: Game, n_samples: int | None, seed: int) -> Prediction:
        evidence = measure_shapley(game, n_samples, seed)
        return self._explain(evidence, _key(game, n_samples))

    def _elements(self, game: Game, values: Tensor) -> tuple[Tensor, ...]:
        """``(N * K, M)`` as tensors of the inputs' shapes, ``(N * K, *features)``."""
        values = values.to(output_dtype(game, values))
        n_outputs = len(values) // game.n_rows
        parts = game.players
        if len(parts.mask) > 1:
            parts = parts.rows(torch.arange(game.n_rows, device=game.device).repeat_interleave(n_outputs))
        return parts.of_elements(values)

    def _default_key(self, game: Game) -> Hashable:
        return _key(game, None)

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        assert isinstance(key, int)
        return measure_shapley(game, 2 * game.players.count if key < 0 else key)

    def _reference(self, game: Game) -> Tensor:
        n_players = game.players.count
        if n_players <= _EXACT_PLAYERS and len(game.players.mask) == 1:
            everything = all_coalitions(n_players, game.device).expand(game.n_rows, -1, -1)
            worths = game.worths(everything)
            assert worths.shape[-1] == 1, "The model has several outputs: pass target= to select the one to explain."
            return shapley_values(worths.squeeze(-1))
        evidence = measure_shapley(game, _REFERENCE_COALITIONS * n_players)
        learner = self._learner_for(evidence.total)
        with torch.no_grad():
            return learner.predict(learner.initial_state(), evidence)


def _key(game: Game, n_samples: int | None) -> int:
    """Coalitions of the border that are measured; -1 where all of it is. States differ by it and by nothing else."""
    n_players = game.players.count
    if n_samples is None:
        return -1 if n_players <= _DEFAULT_PLAYERS else 0
    return -1 if n_samples >= 2 * n_players else n_samples


def rows_at_once(perturbations_per_eval: int, n_examples: int) -> int | None:
    """Rows of the model evaluated together: Captum's coalitions of all examples; our own default where it is 1."""
    assert isinstance(perturbations_per_eval, int) and perturbations_per_eval >= 1, (
        f"perturbations_per_eval must be a positive whole number, got {perturbations_per_eval!r}."
    )
    return None if perturbations_per_eval == 1 else perturbations_per_eval * n_examples
