"""What the two Shapley front ends share."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor

from captum_meta.attr._frontend import Frontend, chunks, of_inputs, plain_arithmetic
from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.evidence import Game, ShapleyMeasurement, measure_shapley, measure_support
from captum_meta.types import Evidence

_EXACT_PLAYERS = 12
_REFERENCE_COALITIONS, _REFERENCE_PLAYERS = 32, 1024
_DEFAULT_PLAYERS = 32
_MAX_COALITIONS = 2048
"""Where a tolerance is asked for and no budget is given."""


class ShapleyFrontend(Frontend):
    """Shapley values from three gradients and a budget of coalitions."""

    kind = "shapley"

    def _predict(self, game: Game, n_samples: int | None, seed: int) -> Tensor:
        """Attributions ``(N * K, M)``."""
        evidence = self._viewed(measure_shapley(game, n_samples, seed), game)
        return self._explain(evidence, _key(game, n_samples)).attributions

    def _predict_within(
        self, game: Game, n_samples: int | None, tolerance: float | None, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Attributions ``(N * K, M)`` and bounds on their errors ``(N * K,)``.

        With a tolerance the coalitions are evaluated in rounds, each as large as all before, and a row leaves when its
        bounds are within it.
        """
        if tolerance is not None and not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}: pass the relative squared error you accept.")
        limit = _MAX_COALITIONS if n_samples is None and tolerance is not None else n_samples
        measurement = ShapleyMeasurement(game, limit, seed)
        rows = torch.arange(game.n_rows, device=game.device)
        count = measurement.length if tolerance is None else min(2 * game.players.count, measurement.length)
        n_outputs = measurement.total.shape[-1]
        attributions = measurement.total.new_zeros(game.n_rows, n_outputs, game.players.count)
        bounds = torch.full_like(attributions[..., 0], torch.nan)
        while len(rows):
            measurement.evaluate(count, torch.zeros_like(game.mask[:, 0]).index_fill(0, rows, True))
            evidence, key = self._viewed(measurement.evidence(rows), game.take(rows)), _key(game, count)
            values = self._explain(evidence, key).attributions
            bounds[rows] = self._bound(evidence, values, key).to(bounds).unflatten(0, (-1, n_outputs))
            attributions[rows] = values.to(attributions).unflatten(0, (-1, n_outputs))
            if count >= measurement.length:
                break
            rows = rows[~(bounds[rows] <= (tolerance or 0.0)).all(-1)]
            count = min(2 * count, measurement.length)
        return attributions.flatten(0, 1), bounds.flatten()

    def _bound(self, evidence: Evidence, attributions: Tensor, key: Hashable) -> Tensor:
        learner, state = self._learner_for(evidence.total), self._state(evidence, key)
        parts = chunks(evidence)
        values = attributions.split([len(part.total) for part in parts])
        with plain_arithmetic(evidence.total.device):
            return torch.cat([learner.estimate_error(state, part, v) for part, v in zip(parts, values, strict=True)])

    def _elements(self, game: Game, values: Tensor) -> tuple[Tensor, ...]:
        """``(N * K, M)`` as tensors of the inputs' shapes, ``(N * K, *features)``."""
        n_outputs = len(values) // game.n_rows
        parts = game.players
        if len(parts.mask) > 1:
            parts = parts.rows(torch.arange(game.n_rows, device=game.device).repeat_interleave(n_outputs))
        return of_inputs(values, game, parts)

    def _default_key(self, game: Game) -> Hashable:
        return _key(game, None)

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        assert isinstance(key, int)
        n_players = game.players.count
        count = 2 * n_players if key < 0 else key
        return measure_support(game, count, self.learner.support_evaluations(n_players))

    def _reference(self, game: Game) -> Tensor:
        n_players = game.players.count
        if n_players <= _EXACT_PLAYERS and len(game.players.mask) == 1:
            everything = all_coalitions(n_players, game.device).expand(game.n_rows, -1, -1)
            worths = game.worths(everything)
            assert worths.shape[-1] == 1, "The model has several outputs: pass target= to select the one to explain."
            with plain_arithmetic(game.device):
                return shapley_values(worths.squeeze(-1))
        if n_players > _REFERENCE_PLAYERS:
            raise ValueError(
                f"A reference for rows of {n_players} players would take {_REFERENCE_COALITIONS * n_players} evaluations of "
                "each, and as many squared of ours: pass a feature_mask that groups them, attributions= or teacher=."
            )
        evidence = measure_shapley(game, _REFERENCE_COALITIONS * n_players)
        learner = self._learner_for(evidence.total)
        with plain_arithmetic(evidence.total.device):
            return learner.explainer(evidence).attributions


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
