"""What all front ends share: a learner, its state for this model, and the support set behind it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from captum.attr import Attribution
from torch import Tensor
from typing_extensions import Self

from captum_meta import _captum
from captum_meta._model import Counted, wide
from captum_meta.attr._adaptation import Adaptation
from captum_meta.attr._arguments import check_model, checked
from captum_meta.attr._arithmetic import chunks, explaining, ordinary, plain_arithmetic, working_dtype
from captum_meta.attr._learner import Learner, LearnerInUse
from captum_meta.attr._paired import paired
from captum_meta.attr._selection import check_background_alone
from captum_meta.attr._support import Support, owned, player_attributions
from captum_meta.attr._units import UnitState
from captum_meta.evidence import EvidencePlan, Game, Players
from captum_meta.games import MeanGame, RememberedGame
from captum_meta.learners import MetaLearner, list_learners
from captum_meta.nn import Prediction
from captum_meta.types import Evidence, Explanations, Kind

_AT_ONCE = 8
"""Support rows whose reference is computed before progress is shown."""


class Frontend:
    """Mixin for subclasses of Captum methods: it turns evidence into attributions, they define what is measured."""

    kind: Kind
    forward_func: Callable[..., Any]
    _learns_from_pairs = False

    def _set_learner(self, learner: Learner) -> None:
        check_model(self.forward_func)
        self._learner = LearnerInUse(learner, self.kind)
        if isinstance(learner, MetaLearner) and learner.kind != self.kind:
            raise ValueError(
                f"{type(self).__name__} needs a learner of {self.kind} attributions, learner={type(learner).__name__} is "
                f"one of {learner.kind} attributions: pass learner=None for the shipped default, or one of "
                f"{list_learners(self.kind)}."
            )
        self._support = Support()
        self._counts: list[Counted] = []
        self._adaptation: Adaptation | None = None
        self._states: dict[EvidencePlan, UnitState] = {}

    @property
    def learner(self) -> MetaLearner:
        """The learner in use, as an object that no other front end has unless it was passed to it, too."""
        return self._learner.own

    def __repr__(self) -> str:
        model = getattr(self.forward_func, "__name__", type(self.forward_func).__name__)
        text = f"{type(self).__name__}({model}, learner={type(self._learner.read).__name__}"
        if self._support.empty:
            return f"{text})"
        spent = sum(counting.evaluations for counting in self._counts)
        return f"{text}, adapted to {len(self._support.keys)} rows for {spent:,} evaluations)"

    def reset(self) -> Self:
        """Forget the support set: explain zero-shot again."""
        self._support = Support()
        self._states, self._counts, self._adaptation = {}, [], None
        return self

    @checked
    def adapt(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        *,
        background: Any = None,
        attributions: Any = None,
        teacher: Attribution | None = None,
        teacher_kwargs: dict[str, Any] | None = None,
        n_samples: int | None = None,
        show_progress: bool = False,
    ) -> Self:
        """Learn from explained rows of this model; further calls add to the support set.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask: the support rows, as for ``attribute``.
            background: rows in place of ``baselines``. Shapley methods evaluate ``n_samples`` pairs of each support row's
                coalitions and background rows (None: 4M), all outputs whatever the target; calls with this background know
                them beside their own. Others explain each row against four of the background rows.
            attributions: their explanations, as Captum returns them, or ``(B, groups)``. By default they are computed:
                by ``teacher`` if there is one, else by this method's own reference.
            teacher: any Captum method over the same model.
            teacher_kwargs: further arguments of ``teacher.attribute``, such as ``{"n_samples": 1000}``.
            n_samples: of the Shapley methods, coalitions of each support row that its label may cost; learners know how
                noisy it is. None: all there are up to 4,096, else 32 for each player. More rows with cheaper labels often
                teach more than few with exact ones; :attr:`adaptation` tells what came of it.
            show_progress: show how many rows have been explained.

        Beside the explanations, the support rows are measured as queries are; learners that model the explained model, such
        as the default of the Shapley methods, are given coalitions for 16 evaluations per player, a gradient counted as
        three, of rows with up to 64 players.

        Returns:
            This object, so that calls can be chained.

        Raises:
            AssertionError: if ``attributions`` have another shape than the inputs.
            ValueError: if they are not finite, or stand beside ``background``; if there are no rows, a Shapley reference is
                asked for of more than 1,024 players, or ``n_samples`` where it is no budget of labels. The support set is
                then as it was before.
        """
        count_examples(inputs, empty=ValueError)
        if n_samples is not None and (attributions is not None or teacher is not None):
            raise ValueError("n_samples is the budget of our own labels: leave it out beside attributions= and teacher=.")
        baselines = check_background_alone(baselines, background)
        inputs, baselines, background, target = map(owned, (inputs, baselines, background, target))
        additional_forward_args, feature_mask, attributions = map(
            owned, (additional_forward_args, feature_mask, attributions)
        )
        if background is not None and baselines is None:
            if attributions is not None:
                raise ValueError(
                    "attributions= of a mean over background rows do not say what each of these adds to it: leave them out, "
                    "or pass those of single background rows with baselines=."
                )
            given = (inputs, background, target, additional_forward_args, feature_mask)
            if teacher is None and self._learns_from_pairs:
                return self._adapt_to_pairs(*given, n_samples)
            labelled: dict[str, Any] = {"teacher": teacher, "teacher_kwargs": teacher_kwargs, "n_samples": n_samples}
            return self.adapt(*paired(self.forward_func, *given), **labelled, show_progress=show_progress)
        game = RememberedGame(self._game(inputs, baselines, target, additional_forward_args, feature_mask))
        counting = Counted(game.batch.forward_func)
        game.batch = game.evaluation.batch = replace(game.batch, forward_func=counting)
        game.at(torch.ones(1))
        variance = None
        if attributions is None and teacher is not None:
            arguments = dict(teacher_kwargs or {})
            if feature_mask is not None:
                arguments["feature_mask"] = feature_mask
            if additional_forward_args is not None:
                arguments["additional_forward_args"] = additional_forward_args
            if baselines is not None:
                arguments["baselines"] = baselines
            attributions = teacher.attribute(inputs, target=target, **arguments)
        if n_samples is not None:
            values, variance = self._labels(game, n_samples)
        elif attributions is None:
            games = [game]
            if game.n_rows == game.n_examples and not game.together:
                games = [game.take(rows) for rows in torch.arange(game.n_examples, device=game.device).split(_AT_ONCE)]
            shown = _captum.progress(games, desc=f"{type(self).__name__} reference") if show_progress else games
            values = torch.cat([self._reference(part) for part in shown])
            if games[0] is not game:
                game.remember(games)
        else:
            values = player_attributions(attributions, game)
        if not bool(values.isfinite().all()):
            broken = (~values.isfinite()).any(1).nonzero().flatten().tolist()
            raise ValueError(f"attributions of the support rows {broken} are not finite: leave these rows out.")
        support = self._support.extended(game, values, variance, _captum.format_tensor_into_tuples(inputs))
        plans = list(self._states) or [self._plan().of_support(game.players.count)]
        states = {plan: self._adapted(support, plan) for plan in plans}
        self._support, self._states = support, states
        self._counts, self._adaptation = [*self._counts, counting], None
        return self

    @property
    def adaptation(self) -> Adaptation:
        """What :meth:`adapt` has cost, how good explanations of left-out support rows are, and when it pays.

        Computed when it is first asked for, for default calls; it evaluates the model no further.

        Raises:
            RuntimeError: before the first :meth:`adapt`.
        """
        if self._support.empty:
            raise RuntimeError("There are no support rows yet: call adapt(rows) first.")
        if self._adaptation is None:
            explanations = self._explanations(self._support, next(iter(self._states)))
            learner = self._learner.for_numbers(explanations.attributions)
            with torch.inference_mode(False), plain_arithmetic(explanations.attributions.device):
                self._adaptation = Adaptation.judged(learner, explanations, sum(c.evaluations for c in self._counts))
        return self._adaptation

    @checked
    def support_weights(
        self,
        inputs: Any,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
    ) -> Tensor:
        """The weight of each support row in the explanations of these rows: explanation by example.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask: the rows, as for ``attribute``.

        Returns:
            ``(B, K)``, each row's shares of what the K support rows, in the order of :meth:`adapt`, add to its explanation
            by default arguments. They sum to 1, or are 0 where the support set adds nothing.

        Raises:
            RuntimeError: before the first :meth:`adapt`.
            ValueError: if the learner does not compare rows.
        """
        if self._support.empty:
            raise RuntimeError("There are no support rows yet: call adapt(rows) first.")
        game = self._game(inputs, baselines, target, additional_forward_args, feature_mask)
        plan = self._plan().of_support(game.players.count)
        evidence = plan.measure(game)
        support = self._explanations(self._support, plan)
        support = support.to(evidence.total.device, working_dtype(evidence.total))
        learner = self._learner.for_numbers(evidence.total)
        with plain_arithmetic(evidence.total.device):
            return torch.cat([learner.support_weights(support, part) for part in chunks(evidence)])

    def _adapt_to_pairs(self, *given: Any) -> Self:
        raise NotImplementedError

    def _game(
        self,
        inputs: Any,
        baselines: Any,
        target: Any,
        additional_forward_args: Any,
        feature_mask: Any = None,
        max_rows: int | None = None,
        label: str | None = None,
    ) -> Game:
        return Game(self.forward_func, inputs, baselines, target, additional_forward_args, feature_mask, max_rows, label)

    def _plan(self) -> EvidencePlan:
        """How queries with default arguments are measured."""
        raise NotImplementedError

    def _reference(self, game: Game) -> Tensor:
        """Attributions ``(N, M)`` that are as good as exact."""
        raise NotImplementedError

    def _labels(self, game: Game, n_samples: int) -> tuple[Tensor, Tensor]:
        """Attributions ``(N, M)`` from ``n_samples`` coalitions per row, and the variance of their noise."""
        raise ValueError(f"{type(self).__name__} has no labels of a budget: leave n_samples= out.")

    def _explanations(self, support: Support, plan: EvidencePlan) -> Explanations:
        explanations = support.explanations(plan)
        broken = (~explanations.evidence.total.isfinite()).nonzero().flatten().tolist()
        if broken:
            raise ValueError(
                f"The model's output is not finite at the support rows {broken}, or at their baselines: leave these out."
            )
        return explanations.to(dtype=working_dtype(explanations.attributions))

    @torch.inference_mode(False)
    def _adapted(self, support: Support, plan: EvidencePlan) -> UnitState:
        explanations = self._explanations(support, plan)
        learner = self._learner.for_numbers(explanations.attributions)
        with plain_arithmetic(explanations.attributions.device):
            return learner.adapt(explanations)

    def _explain(self, evidence: Evidence, plan: EvidencePlan) -> Prediction:
        """Predictions ``(N, M)`` for rows measured as planned, with the state that belongs to the plan."""
        learner, state = self._learner.for_numbers(evidence.total), self._state(evidence, plan)
        with explaining(evidence.total.device):
            parts = chunks(evidence, learner.learner.explainer.elements_at_once(evidence))
            found = Prediction.concatenate([learner.explain(state, part) for part in parts])
        return ordinary(found)

    def _attributions(self, evidence: Evidence, plan: EvidencePlan) -> Tensor:
        return self._explain(evidence, plan).attributions

    def _state(self, evidence: Evidence, plan: EvidencePlan) -> UnitState | None:
        """The learner's state for evidence of this plan, in the evidence's precision and on its device."""
        plan = plan.of_support(evidence.players.shape[-1])
        if not self._support.empty and plan not in self._states:
            self._states[plan] = self._adapted(self._support, plan)
        return (state := self._states.get(plan)) and state.to(evidence.total.device, working_dtype(evidence.total))


def count_examples(inputs: Any, empty: type[Exception] = IndexError) -> int:
    """Number of examples in a batch; without any, raises the error that Captum raises."""
    first = _captum.format_tensor_into_tuples(inputs)[0]
    if first.dim() == 0:
        raise IndexError("inputs have no batch dimension: pass tensors of shape (B, *features).")
    if len(first) == 0:
        raise empty("inputs have no rows: pass at least one example.")
    return len(first)


def of_inputs(values: Tensor, game: Game | MeanGame, players: Players | None = None) -> tuple[Tensor, ...]:
    """Attributions ``(R, M)`` in the shapes of the inputs, and in their dtypes, but for half precision and whole numbers."""
    parts = zip((players or game.players).of_elements(values), game.inputs, strict=True)
    return tuple((part.to(wide(x).dtype) if x.is_floating_point() else part).contiguous() for part, x in parts)
