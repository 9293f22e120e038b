"""The inner loop that all gradient-based learners share."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor

from captum_meta.learners.base import MetaLearner
from captum_meta.losses import scaled_squared_error
from captum_meta.nn import Explainer, Prior
from captum_meta.optim import Backprop, FirstOrder, Hypergradient, InnerProblem, Tensors, UpdateRule, call_per_task
from captum_meta.types import Evidence, Explanations, State, _Rows

_R = TypeVar("_R", bound=_Rows)

ExplanationLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From predicted attributions, reference and its variance or None, ``(T, K, M)`` each, to the mean loss of the tasks."""


class GradientLearner(MetaLearner):
    """Adapts by a few steps along the gradient of the support rows' loss.

    The state holds the fast parameters of each task. A subclass says in its constructor which parameters are fast, by which
    rule they move and how the outcome is differentiated; the inner loop is the same for all.

    Args:
        explainer: the network whose parameters are the initialisation.
        fast: names of the explainer's parameters that adapt, as patterns: ``"*"`` all, ``"head.*"`` its last layer,
            ``"encode.2.bias"`` a context vector added to the hidden units of every player.
        steps: of the inner loop.
        make_rule: from the fast parameters' values by name, without tasks, to the update rule.
        hypergradient: how training differentiates the inner loop; it changes nothing once trained, and is not saved.
        inner_loss: what the inner loop minimises; a callable of (predicted, reference, variance).

    Raises:
        ValueError: if a pattern fits no parameter.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str],
        steps: int,
        make_rule: Callable[[Tensors], UpdateRule],
        hypergradient: Hypergradient | None = None,
        inner_loss: ExplanationLoss = scaled_squared_error,
    ) -> None:
        super().__init__(explainer)
        self.fast, self.steps = tuple(fast), steps
        self.names = _matching([name for name, _ in explainer.named_parameters()], self.fast)
        self.rule = make_rule({name: explainer.get_parameter(name) for name in self.names})
        self.hypergradient = hypergradient or Backprop()
        self.inner_loss = inner_loss

    def arguments(self) -> dict[str, object]:
        return {"fast": list(self.fast), "steps": self.steps}

    def start(self, n_tasks: int) -> Tensors:
        """The fast parameters before the first step, ``(n_tasks, *shape)``."""
        values = dict(self.explainer.named_parameters())
        return {name: values[name].expand(n_tasks, *values[name].shape) for name in self.names}

    def problem(self, support: Explanations, start: Tensors) -> InnerProblem:
        """What the inner loop minimises on the support rows ``(T, K, M)``."""

        def loss(parameters: Tensors) -> Tensor:
            prior = call_per_task(self.explainer, "prior", parameters, support.evidence)
            predicted = self.explainer.complete(prior, support.evidence).attributions
            return len(predicted) * self.inner_loss(predicted, support.attributions, support.variance)

        return InnerProblem(loss, self.rule, self.steps)

    def adapt(self, support: Explanations) -> State:
        if len(support) == 0:
            return self.initial_state()
        batch = support.attributions.shape[:-2]
        tasks = flatten_tasks(without_coalitions(support), len(batch))
        if torch.is_grad_enabled():
            fast = self.fit(tasks, self.hypergradient)
        else:
            with torch.inference_mode(False), torch.enable_grad():
                fast = self.fit(tasks.map(_ordinary), FirstOrder())
            fast = {name: value.detach() for name, value in fast.items()}
        return {name: value.reshape(*batch, *value.shape[1:]) for name, value in fast.items()}

    def fit(self, support: Explanations, hypergradient: Hypergradient) -> Tensors:
        """Fast parameters ``(T, *shape)`` after the inner loop on ``(T, K, M)``."""
        start = self.start(len(support.attributions))
        return hypergradient.solve(self.problem(support, start), start)

    def prior(self, state: State, evidence: Evidence) -> Prior:
        if not state:
            return self.explainer.prior(evidence)
        batch = evidence.total.shape[:-1]
        fast = {name: state[name].reshape(-1, *state[name].shape[len(batch) :]) for name in self.names}
        prior: Prior = call_per_task(self.explainer, "prior", fast, flatten_tasks(evidence, len(batch)))
        return prior.map(lambda value: value.reshape(*batch, *value.shape[1:]))


def without_coalitions(explanations: Explanations) -> Explanations:
    """What the network itself says is to be learned, not what coalitions inside the border make of it."""
    return replace(explanations, evidence=replace(explanations.evidence, coalitions=None))


def flatten_tasks(rows: _R, n_batch: int) -> _R:
    """The first ``n_batch`` dimensions as one."""
    return rows.map(lambda value: value.reshape(-1, *value.shape[n_batch:]))


def _ordinary(value: Tensor) -> Tensor:
    """A tensor that autograd may record, also where it was made in inference mode."""
    return value.clone() if value.is_inference() else value


def _matching(names: list[str], patterns: Sequence[str]) -> list[str]:
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise ValueError(f"No parameter of the explainer fits fast={pattern!r}: pass patterns of {names}.")
    return [name for name in names if any(fnmatchcase(name, pattern) for pattern in patterns)]
