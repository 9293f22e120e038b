"""The inner loop that all gradient-based learners share."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import partial
from inspect import Signature, signature
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta._numbers import at_least
from captum_meta.learners import _config
from captum_meta.learners._correction import folds, judge
from captum_meta.learners._gradient_state import GradientState, between, picked
from captum_meta.learners.base import MetaLearner
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer, Prior
from captum_meta.optim import Backprop, Hypergradient, InnerProblem, Tensors, UpdateRule, call_per_task, iterates
from captum_meta.optim.compiled import CompiledFunction, CompiledProblem
from captum_meta.optim.per_task import fast_names, same_for_all
from captum_meta.optim.rules import clipped
from captum_meta.types import Evidence, Explanations, ExplanationTask, Record


class GradientLearner(MetaLearner[GradientState]):
    r"""Adapts by a few steps along the gradient of the support rows' loss.

    A subclass says by which rule the fast parameters move (:meth:`make_rule`), and may have defaults of its own; the inner
    loop and the arguments are the same for all.

    Training differentiates the plain inner loop. :meth:`adapt` also runs it without a part of the support rows at a time,
    beside the one on all of them, and from what the left-out rows would have gained chooses the number of steps and how
    far to go from the zero-shot answer towards the adapted one,

    .. math:: \phi = \phi_{\theta_0} + s (\phi_{\theta_k} - \phi_{\theta_0}), \qquad 0 \le s \le 1

    (:mod:`captum_meta.learners._correction`). A single support row leaves nothing to judge by, and changes nothing.

    Args:
        explainer: the network whose parameters are the initialisation.
        fast: names of the explainer's parameters that adapt, as patterns: ``"*"`` all, ``"head.*"`` its last layer,
            ``"encode.2.bias"`` a context vector added to the hidden units of every player.
        steps: of the inner loop.
        rate: from which the rates of the steps are learned.
        hypergradient: how training differentiates the inner loop; it changes nothing once trained. None: the learner's own.
        inner_loss: what the inner loop minimises: the name of a function of :mod:`captum_meta.losses`, or a callable of
            (predicted, reference, variance), with which the learner cannot be saved.
        zero_shot: weight of the loss before adaptation in meta-training, beside the loss after it.
        outer_loss: what meta-training minimises, of the query rows; given as ``inner_loss``.
        clip: length to which a task's inner gradient is cut; None: it is taken as it is.

    Raises:
        ValueError: if a pattern fits no parameter, or a number is one that nothing can be computed with.
    """

    __signature__: ClassVar[Signature]

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("*",),
        steps: int = 5,
        rate: float = 0.01,
        hypergradient: _config.HypergradientArgument = None,
        inner_loss: _config.LossArgument = scaled_squared_error,
        zero_shot: float = 0.0,
        outer_loss: _config.LossArgument = relative_squared_error,
        clip: float | None = 1.0,
    ) -> None:
        super().__init__(explainer)
        self.fast, self.steps, self.clip = tuple(fast), at_least("steps", steps, 0), clip
        self.names = fast_names(explainer, self.fast, called="explainer")
        self.rule = clipped(self.make_rule({name: explainer.get_parameter(name) for name in self.names}, rate), clip)
        self.hypergradient = _config.hypergradient_of(hypergradient) or self.own_hypergradient()
        self.inner_loss, self.outer_loss = _config.loss_of(inner_loss), _config.loss_of(outer_loss)
        self.zero_shot = at_least("zero_shot", zero_shot, 0.0)
        self._hidden_is_shared = all(any(fnmatchcase(name, each) for each in explainer.reading) for name in self.names)
        self._compiled_hidden: CompiledFunction | None = None
        self._compiled_gradient: CompiledFunction | None = None
        self._compiled_outcome: CompiledFunction | None = None

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        cls.__signature__ = _config.with_options(signature(cls.__init__), signature(GradientLearner.__init__))

    @abstractmethod
    def make_rule(self, parameters: Tensors, rate: float) -> UpdateRule:
        """The update rule of the fast parameters, which are given by name, without tasks."""

    def own_hypergradient(self) -> Hypergradient:
        """The hypergradient where none is given."""
        return Backprop()

    def compile(self, *args: object, **kwargs: object) -> None:
        """Training computes the inner gradients and the query loss by compiled graphs, one for each shape of a batch.

        The first step of each shape waits for the compiler: minutes, where all parameters are fast and second derivatives
        are wanted. A custom ``inner_loss`` may not look at values. :meth:`adapt` and :meth:`predict` are not compiled.

        Raises:
            ValueError: the explainer chooses its computation by looking at values, or the hypergradient cannot use
                compiled graphs.
        """
        if self.kind == "path":
            raise ValueError("PathExplainer makes its quadrature with NumPy, which no compiled graph can: train it eagerly.")
        if self.hypergradient.uncompiled is not None:
            raise ValueError(
                f"{type(self.hypergradient).__name__} {self.hypergradient.uncompiled}: train it with compile=False, or take "
                "the hypergradient Backprop, FirstOrder, Truncated or MultiStepLoss."
            )
        self._compiled_hidden = CompiledFunction(self.explainer, lambda _, evidence: (self.explainer.hidden(evidence),))
        self._compiled_gradient = CompiledFunction(self.explainer, self._support_gradient)
        self._compiled_outcome = CompiledFunction(self.explainer, lambda fast, query: (self._query_loss(fast, query),))

    def arguments(self) -> dict[str, object]:
        return {
            "fast": list(self.fast),
            "steps": self.steps,
            "hypergradient": _config.described_hypergradient(self.hypergradient),
            "inner_loss": _config.described_loss(self.inner_loss, "inner_loss"),
            "zero_shot": self.zero_shot,
            "outer_loss": _config.described_loss(self.outer_loss, "outer_loss"),
            "clip": self.clip,
        }

    def start(self, n_tasks: int) -> Tensors:
        """The fast parameters before the first step, ``(n_tasks, *shape)``."""
        return same_for_all(self.explainer, self.names, n_tasks)

    def problem(
        self, support: Explanations, start: Tensors, used: Tensor | None = None, hidden: Tensor | None = None
    ) -> InnerProblem:
        """What the inner loop minimises on the support rows ``(T, K, M)``, or those ``used``, ``(T, K)`` bool.

        With their ``hidden`` units, where no fast parameter changes these, they are not computed again at every step.
        """
        rows = _Read(support, hidden)
        if used is None:
            problem = InnerProblem(partial(self._support_loss, rows=rows), self.rule, self.steps)
            if self._compiled_gradient is None:
                return problem
            return CompiledProblem(**vars(problem), compiled=partial(self._compiled_gradient, rows=rows))
        reference, variance = support.attributions, support.variance
        reference = torch.where(used.unsqueeze(-1), reference, 0.0)
        variance = variance if variance is None else torch.where(used.unsqueeze(-1), variance, 0.0)

        def loss(parameters: Tensors) -> Tensor:
            predicted = torch.where(used.unsqueeze(-1), self._predicted(parameters, support.evidence, hidden), 0.0)
            return len(predicted) * self.inner_loss(predicted, reference, variance)

        return InnerProblem(loss, self.rule, self.steps)

    def _shared_hidden(self, evidence: Evidence) -> Tensor | None:
        """The last hidden units of the rows, if no fast parameter changes them."""
        return self.explainer.hidden(evidence) if self._hidden_is_shared else None

    def _support_hidden(self, evidence: Evidence) -> Tensor | None:
        """The same in training, perhaps by a compiled graph; without gradients if nothing will ask for them."""
        if not self._hidden_is_shared:
            return None
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.hypergradient.second_order):
            if self._compiled_hidden is None:
                return self.explainer.hidden(evidence)
            return self._compiled_hidden({}, evidence)[0]

    def _support_loss(self, parameters: Tensors, rows: _Read) -> Tensor:
        support = rows.explanations
        predicted = self._predicted(parameters, support.evidence, rows.hidden)
        return len(predicted) * self.inner_loss(predicted, support.attributions, support.variance)

    def _support_gradient(self, parameters: Tensors, rows: _Read) -> tuple[Tensor, ...]:
        problem = InnerProblem(partial(self._support_loss, rows=rows), self.rule, self.steps)
        create_graph = torch.is_grad_enabled()
        with torch.enable_grad():
            return tuple(problem.gradient(parameters, create_graph).values())

    def _query_loss(self, fast: Tensors, query: Explanations) -> Tensor:
        predicted = self._predicted(fast, query.evidence)
        return self.outer_loss(predicted, query.attributions, query.variance)

    def fit(self, support: Explanations) -> Tensors:
        """Fast parameters ``(T, *shape)`` after the inner loop on ``(T, K, M)``, differentiable by the hypergradient."""
        start = self.start(len(support.attributions))
        problem = self.problem(support, start, hidden=self._support_hidden(support.evidence))
        return self.hypergradient.solve(problem, start)

    def begin_step(self, number: int) -> None:
        self.hypergradient.begin_step(number)

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """The query loss after the inner loop, which runs all of its steps, plus ``zero_shot`` times that before it.

        Raises:
            ValueError: if there are no support rows.
        """
        self.require_rows(tasks.support)
        n_batch = tasks.support.attributions.dim() - 2
        support, query = (rows.flattened(n_batch) for rows in (tasks.support, tasks.query))

        def outcome(fast: Tensors) -> Tensor:
            if self._compiled_outcome is None or query.evidence.coalitions is not None:
                return self._query_loss(fast, query)
            return self._compiled_outcome(fast, query)[0]

        start, support = self.start(len(query.attributions)), support.without_coalitions()
        problem = self.problem(support, start, hidden=self._support_hidden(support.evidence))
        loss = self.hypergradient.loss(problem, start, outcome)
        if self.zero_shot == 0:
            return loss
        before = self.explainer(query.evidence).attributions
        return loss + self.zero_shot * self.outer_loss(before, query.attributions, query.variance)

    def adapt(self, support: Explanations) -> GradientState | None:
        self.require_numbers(support)
        if len(support) == 0:
            return None
        batch = support.attributions.shape[:-2]
        tasks = support.without_coalitions().flattened(len(batch)).detach()
        with torch.inference_mode(False), torch.enable_grad():
            state = self._adapted(tasks.map(_ordinary))
        return state.map(lambda value: value.detach().reshape((*batch, *value.shape[1:])))

    def _adapted(self, support: Explanations) -> GradientState:
        """The state ``(T, ...)`` after the inner loop on all rows, stopped and shortened as left-out rows advise."""
        left_out = folds(support.evidence.total)
        used = torch.cat([torch.ones_like(left_out[:, :1]), ~left_out], dim=1)
        with torch.no_grad():
            rows = _Read(support, self._shared_hidden(support.evidence))
            prior = self.explainer.prior(support.evidence, rows.hidden)
            base = self.explainer.complete(prior, support.evidence).attributions
        rows = rows.map(lambda value: value.unsqueeze(1).expand(-1, used.shape[1], *value.shape[1:]).flatten(0, 1))
        trajectory = self._trajectory(rows, used.flatten(0, 1))
        corrections = [torch.zeros_like(base)]
        for fast in trajectory[1:]:
            with torch.no_grad():
                predicted = self._predicted(fast, rows.explanations.evidence, rows.hidden)
            predicted = predicted.unflatten(0, (len(base), -1))
            found = torch.where(left_out.unsqueeze(-1), predicted[:, 1:], 0.0).sum(1) - base
            ends = predicted.flatten(1).isfinite().all(1).reshape(-1, 1, 1)  # in all loops, that of all rows too
            corrections.append(torch.where(ends, found, torch.nan))
        trust, _ = judge(torch.stack(corrections), support.attributions - base)
        return GradientState(picked(trajectory, trust.option, used.shape[1]), trust.strength)

    def _trajectory(self, rows: _Read, used: Tensor) -> list[Tensors]:
        start = self.start(len(used))
        problem = self.problem(rows.explanations, start, used, rows.hidden)
        return [{name: v.detach() for name, v in fast.items()} for fast in iterates(problem, start, create_graph=False)]

    def _predicted(self, fast: Tensors, evidence: Evidence, hidden: Tensor | None = None) -> Tensor:
        prior = call_per_task(self.explainer, "prior", fast, evidence, hidden)
        return self.explainer.complete(prior, evidence).attributions

    def propose(self, state: GradientState | None, evidence: Evidence) -> Prior:
        hidden = self._shared_hidden(evidence)
        start = self.explainer.prior(evidence, hidden)
        if state is None:
            return start
        batch = evidence.total.shape[:-1]
        fast = {name: value.reshape(-1, *value.shape[len(batch) :]) for name, value in state.fast.items()}
        hidden = None if hidden is None else hidden.reshape(-1, *hidden.shape[len(batch) :])
        adapted: Prior = call_per_task(self.explainer, "prior", fast, evidence.flattened(len(batch)), hidden)
        adapted = adapted.map(lambda value: value.reshape(*batch, *value.shape[1:]))
        return between(start, adapted, state.strength)


@dataclass(frozen=True)
class _Read(Record):
    """Explained rows, and the last hidden units of the explainer for them where these are known."""

    explanations: Explanations
    hidden: Tensor | None


def _ordinary(value: Tensor) -> Tensor:
    """A tensor that autograd may record, also where it was made in inference mode."""
    return value.clone() if value.is_inference() else value
