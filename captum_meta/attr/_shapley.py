"""What the two Shapley front ends share."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from math import nan
from typing import Any

import torch
from torch import Tensor
from typing_extensions import Self

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta._model import Counted
from captum_meta._numbers import TINY
from captum_meta._random import uniform
from captum_meta.attr._adaptation import Adaptation
from captum_meta.attr._arguments import checked
from captum_meta.attr._arithmetic import chunks, explain_alone, plain_arithmetic
from captum_meta.attr._background import explain_mean_game
from captum_meta.attr._frontend import Frontend, count_examples, of_inputs
from captum_meta.attr._interaction_rounds import SEVERAL_OUTPUTS, measure_for_interactions
from captum_meta.attr._interactions import (
    SHAPLEY_INDICES,
    check_interactions,
    coalitions_for_interactions,
    expected_interactions,
    interactions_of_mean_game,
)
from captum_meta.attr._memory import Memory
from captum_meta.attr._pair_budgets import default_pairs
from captum_meta.attr._pair_support import PairSupport
from captum_meta.attr._rounds import measure_in_rounds
from captum_meta.attr._selection import check_background_alone
from captum_meta.attr._units import InUnits
from captum_meta.estimators import Index, remembered_rates
from captum_meta.evidence import Game, ShapleyPlan, measure_shapley, row_keys
from captum_meta.games import MeanGame, Players
from captum_meta.games.references import exact_shapley_values
from captum_meta.learners import ZeroShot
from captum_meta.types import Evidence

_EXACT_PLAYERS = 12
_REFERENCE_COALITIONS, _REFERENCE_PLAYERS = 32, 1024
_MAX_COALITIONS = 2048
"""Default budget under a tolerance."""
BOUND_OVER_ERROR = 4
"""Factor from expected errors to bounds that nine in ten rows stay below."""
_GRADIENT_ROWS = 8
"""Background rows per row where gradients alone are measured."""
_SUPPORT_PAIRS = 4
"""Pairs per player of a support row, beside background rows."""
_SIGNALS = 22
"""The first of the error estimate's inputs, which are logarithms of squares."""
Accept = Callable[[Tensor, Evidence, Tensor, Tensor], Tensor]
"""From rows' indices, evidence, attributions ``(R, M)`` and error bounds to the rows ``(R,)`` that are finished."""


class ShapleyFrontend(Frontend):
    """Shapley values from three gradients and a budget of coalitions."""

    kind = "shapley"
    counts_permutations = False
    """Whether ``n_samples`` counts coalitions for each player."""
    _memory: Memory | None = None
    _pairs: PairSupport | None = None
    _learns_from_pairs = True

    @checked
    def interactions(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        n_samples: int | None = None,
        index: Index = "k-SII",
        background: TensorOrTupleOfTensorsGeneric | None = None,
        *,
        seed: int = 0,
    ) -> Tensor:
        """Interactions of every pair of players, and main effects, of each row.

        They cost what attributions cost: three gradients and ``n_samples`` coalitions, from which a Gaussian process over
        all coalitions, fitted to each row, expects the others (:mod:`captum_meta.estimators.interaction_process`). Of up to
        16 players, the coalitions that follow those of one player and of all but one are chosen in rounds, by what they
        tell about the row's own pairs (:mod:`captum_meta.estimators.pair_design`), and where all values seen are between 0
        and 1 a process of their logits answers, too (:mod:`captum_meta.estimators.probability_process`). Exact where all
        coalitions are evaluated.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask, background, seed: as for ``attribute``.
            n_samples: as for ``attribute``. None: 16 coalitions for each player, at most 2,048; with a background as there.
            index: what an interaction is (:mod:`captum_meta.estimators.interactions`). "k-SII": main effects and pairs sum
                to f(input) - f(baseline); "SII": main effects are Shapley values, about as exact as those of ``attribute``;
                "STII" and "FSII" sum up as well; "BII": Banzhaf interactions of pairs, and Banzhaf values on the diagonal.

        Returns:
            ``(B, M, M)``, symmetric: pairs off the diagonal, main effects on it. With a ``feature_mask`` a
            group has the row and the column of its id, counted from the smallest, as with ``return_input_shape=False``.

        Raises:
            ValueError: for another index, ``n_samples=0``, or more than 256 players.
            AssertionError: if the model has several outputs and no target selects one.

        >>> from captum_meta.attr import MetaKernelShap
        >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
        >>> MetaKernelShap(model).interactions(torch.tensor([[2.0, 3.0, 1.0]])).round(decimals=3).tolist()
        [[[0.0, 6.0, 0.0], [6.0, 0.0, 0.0], [0.0, 0.0, 1.0]]]
        """
        count_examples(inputs)
        game = self._mean_game(inputs, baselines, background, target, additional_forward_args, feature_mask)
        check_interactions(game, index, n_samples)
        if isinstance(game, MeanGame):
            each = n_samples if n_samples is None or not self.counts_permutations else n_samples * game.mask.sum(1)
            budgets = default_pairs(game) if each is None else torch.as_tensor(each).expand(game.n_rows)
            values = interactions_of_mean_game(game, budgets, index, seed, self._pairs)
        else:
            plan = self._plan(coalitions_for_interactions(game, n_samples, self.counts_permutations), seed)
            evidence, start = measure_for_interactions(plan, game)
            shapley = self._explain(evidence, plan).attributions if index in SHAPLEY_INDICES else None
            values = expected_interactions(evidence, start.flatten(), shapley, index)
        assert len(values) == game.n_rows, SEVERAL_OUTPUTS
        players = self._players(game, values)
        rows = torch.stack([players.by_id(part) for part in values.unbind(1)], dim=2)
        return torch.stack([players.by_id(part) for part in rows.unbind(1)], dim=2)

    def reset(self) -> Self:
        """Forget the support set, and pairs with background rows."""
        self._pairs = None
        return super().reset()

    @property
    def adaptation(self) -> Adaptation:
        """As for all front ends; for support rows beside background rows, which have no labels, without errors."""
        if self._support.empty and self._pairs is not None:
            spent = sum(counting.evaluations for counting in self._counts)
            return Adaptation(self._pairs.game.n_rows, spent, nan, nan, nan)
        return super().adaptation

    def _adapt_to_pairs(
        self, inputs: Any, background: Any, target: Any, extra: Any, feature_mask: Any, n_samples: int | None
    ) -> Self:
        counting, per_player = Counted(self.forward_func), n_samples is None or self.counts_permutations
        each = _SUPPORT_PAIRS if n_samples is None else n_samples
        known = PairSupport.measured(counting, inputs, background, extra, feature_mask, each, per_player)
        self._pairs = known if self._pairs is None else self._pairs.joined(known)
        self._counts = [*self._counts, counting]
        return self

    def _plan(self, coalitions: int | None = None, seed: int = 0, per_player: bool = False) -> ShapleyPlan:
        return ShapleyPlan(coalitions, per_player, seed, border=not self._support.empty, reading=self._learner.read.reading)

    @remembered_rates()
    def _predict(self, game: Game, plan: ShapleyPlan, with_bounds: bool) -> tuple[Tensor, Tensor]:
        """Attributions ``(N * K, M)`` and, if they are asked for, bounds on their errors ``(N * K,)``."""
        return self._explained(game, *measure_in_rounds(plan, game, self._learner), plan, with_bounds)

    def _predict_within(self, game: Game, plan: ShapleyPlan, tolerance: float) -> tuple[Tensor, Tensor]:
        """The same in rounds: a row is finished when its bounds are within the tolerance."""
        if not tolerance > 0:
            raise ValueError(f"tolerance must be positive, got {tolerance}: pass the relative squared error you accept.")
        if plan.coalitions is None:
            plan = replace(plan, coalitions=_MAX_COALITIONS, per_player=False)
        return self._predict_in_rounds(
            game, plan, 2 * game.players.mask.sum(1), lambda rows, evidence, values, bounds: bounds <= tolerance
        )

    @remembered_rates()
    def _predict_in_rounds(self, game: Game, plan: ShapleyPlan, first: Tensor, accept: Accept) -> tuple[Tensor, Tensor]:
        """Attributions and bounds; coalitions are evaluated in rounds, each doubling their number.

        Args:
            plan: the largest budget of a row.
            first: ``(N,)`` or ``()``, coalitions of each row in the first round.
            accept: an output has the answer of the first round in which it is accepted, as if it were explained alone; a
                row is finished when all of its outputs are accepted.
        """
        measurement = plan.begin(game)
        n_outputs = measurement.total.shape[-1]
        attributions = measurement.total.new_zeros(game.n_rows, n_outputs, game.players.count)
        bounds = torch.full_like(attributions[..., 0], torch.nan)
        accepted = torch.zeros_like(bounds, dtype=torch.bool)
        rows = torch.arange(game.n_rows, device=game.device)
        while len(rows):
            counts = torch.minimum(first, measurement.limits)
            measurement.evaluate(counts, torch.zeros_like(game.mask[:, 0]).index_fill(0, rows, True))
            evidence = plan.read_beside(measurement.evidence(rows), game.take(rows))
            known = replace(plan, coalitions=int(counts[rows].max()), per_player=False)
            values, found = self._explained(game.take(rows), evidence, measurement.start[rows], known, True)
            before, now = accepted[rows], accept(rows, evidence, values, found)
            values, found, now = (part.unflatten(0, (-1, n_outputs)) for part in (values, found, now))
            bounds[rows] = torch.where(before, bounds[rows], found.to(bounds))
            attributions[rows] = torch.where(before.unsqueeze(-1), attributions[rows], values.to(attributions))
            accepted[rows] = before | now
            rows = rows[~(accepted.all(-1) | (counts >= measurement.limits))[rows]]
            first = 2 * first
        return attributions.flatten(0, 1), bounds.flatten()

    def _predict_mean(
        self, game: MeanGame, budgets: Tensor, tolerance: float | None, with_bounds: bool, seed: int
    ) -> tuple[Tensor, Tensor]:
        """Attributions ``(N * K, M)`` and bounds ``(N * K,)`` of a mean game; ``budgets (N,)`` are pairs of each row."""
        if self._memory is not None:
            self._memory.pass_over()
        if not bool(budgets.any()):
            return self._predict_mean_from_gradients(game, seed)
        values, bounds = explain_mean_game(game, budgets, tolerance, with_bounds, seed, support=self._pairs)
        return values.flatten(0, 1), bounds.flatten()

    def _predict_mean_from_gradients(self, game: MeanGame, seed: int) -> tuple[Tensor, Tensor]:
        """The mean of explanations from gradients at a few background rows; the gap to f's change is shared evenly."""
        everyone, nobody = game.ends()
        order = uniform(row_keys(game.game), (game.count,), seed).argsort(1)[:, :_GRADIENT_ROWS]
        plan = self._plan(0, seed)
        values = self._explain(plan.measure(game.with_one(order)), plan).attributions
        values = values.unflatten(0, (game.n_rows, order.shape[1], -1)).mean(1)
        missing = everyone - nobody.mean(1) - values.sum(2)
        shares = (values != 0) / (values != 0).sum(2, keepdim=True).clamp(min=1)
        return (values + shares * missing.unsqueeze(2)).flatten(0, 1), torch.full_like(missing, torch.nan).flatten()

    def _explained(
        self, game: Game, evidence: Evidence, start: Tensor, plan: ShapleyPlan, with_bounds: bool
    ) -> tuple[Tensor, Tensor]:
        """Attributions ``(R, M)`` and bounds ``(R,)``: 0 for rows that are their baselines, for others NaN if not asked for.

        The rows are measured as planned, and f of the baselines is ``start (N, K)``.
        """
        learner, state = self._learner.for_numbers(evidence.total), self._state(evidence, plan)
        if self._memory is None:
            values, bounds = explain_alone(learner, state, evidence, with_bounds)
        else:
            values, bounds = self._memory.explain(game, evidence, start.flatten(), learner, state, with_bounds)
        return values, bounds.where(game.changed.any(1).repeat_interleave(len(bounds) // game.n_rows), 0.0)

    def _error_signals(self, evidence: Evidence, values: Tensor) -> Tensor:
        """Signals of the errors of attributions ``(R, M)``: logarithms in units of the output, ``(R, 22)``.

        They are the first of :func:`captum_meta.nn.error_head.numbers_of` for the explainer that has not been adapted; zero
        where this has none.
        """
        learner = self._learner.for_numbers(evidence.total)
        with plain_arithmetic(evidence.total.device):
            found = torch.cat([learner.error_numbers(part) for part in chunks(evidence)])[:, :_SIGNALS]
        return found.double() / 2 + values.double().norm(dim=1, keepdim=True).clamp(min=TINY).log()

    def _shaped(
        self, game: Game | MeanGame, values: Tensor, answers: tuple[int, ...], is_tuple: bool, by_input: bool = True
    ) -> Any:
        """Attributions ``(N * K, M)`` as ``(*answers, *features)``, for each input, or as ``(*answers, groups)``."""
        players = self._players(game, values)
        parts = of_inputs(values, game, players) if by_input else (players.by_id(values),)
        shaped = tuple(part.reshape(*answers, *part.shape[1:]) for part in parts)
        return _captum.format_output(is_tuple and by_input, shaped)

    def _mean_game(self, inputs: Any, baselines: Any, background: Any, *arguments: Any) -> Game | MeanGame:
        """The game of ``baselines``, or the mean over several background rows; a single one is a baseline."""
        baselines = check_background_alone(baselines, background)
        if background is None or baselines is not None:
            return self._game(inputs, baselines, *arguments)
        return MeanGame(self.forward_func, inputs, background, *arguments)

    def _players(self, game: Game | MeanGame, values: Tensor) -> Players:
        """The players of each of the rows ``(N * K, M)``."""
        if len(game.players.mask) == 1:
            return game.players
        rows = torch.arange(game.n_rows, device=game.device)
        return game.players.rows(rows.repeat_interleave(len(values) // game.n_rows))

    def _reference(self, game: Game) -> Tensor:
        n_players = game.players.count
        if n_players <= _EXACT_PLAYERS and len(game.players.mask) == 1:

            def values(members: Tensor) -> Tensor:
                found = game.values(members.expand(game.n_rows, -1, -1))
                assert found.shape[-1] == 1, "The model has several outputs: pass target= to select the one to explain."
                return found.squeeze(-1)

            return exact_shapley_values(values, n_players, game.device)
        if n_players > _REFERENCE_PLAYERS:
            raise ValueError(
                f"A reference for rows of {n_players} players would take {_REFERENCE_COALITIONS * n_players} evaluations of "
                "each, and as many squared of ours: pass a feature_mask that groups them, attributions= or teacher=."
            )
        evidence = measure_shapley(game, _REFERENCE_COALITIONS * n_players)
        learner = self._learner.for_numbers(evidence.total)
        with plain_arithmetic(evidence.total.device):
            return learner.explainer(evidence).attributions

    def _labels(self, game: Game, n_samples: int) -> tuple[Tensor, Tensor]:
        """Labels by the zero-shot explainer, with the noise that its error estimate expects."""
        evidence = measure_shapley(game, n_samples)
        explainer = InUnits(ZeroShot(self._learner.for_numbers(evidence.total).learner.explainer))
        values, bounds = explain_alone(explainer, None, evidence, True)
        expected = (bounds / BOUND_OVER_ERROR).nan_to_num(1.0, 1.0).clamp(max=1.0)
        size = values.square().sum(1) / evidence.n_players.clamp(min=1)
        return values, (expected * size).unsqueeze(1) * evidence.players
