"""The protocol of all meta-learners."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from os import PathLike
from typing import Any, Generic

from jaxtyping import Float
from torch import Tensor, nn
from typing_extensions import TypeVar

from captum_meta.losses import relative_squared_error
from captum_meta.nn import Explainer, Prediction, Prior
from captum_meta.types import Evidence, Explanations, ExplanationTask, Kind, Reading, Record

StateT = TypeVar("StateT", bound=Record, default=Any)


class MetaLearner(nn.Module, ABC, Generic[StateT]):
    """Adapts an explainer to one explained model: ``adapt(support) -> state``, ``predict(state, evidence)``.

    The parameters of this module are the meta-parameters, learned over many explanation tasks and never changed by
    :meth:`adapt`; what is learned of one explained model is the state, a record of tensors that each learner names. All
    methods accept leading batch dimensions of tasks. A subclass writes :meth:`adapt`, and :meth:`corrected` to say what the
    state changes.

    Args:
        explainer: the network from evidence to attributions.
    """

    def __init__(self, explainer: Explainer) -> None:
        super().__init__()
        self.explainer = explainer

    @property
    def kind(self) -> Kind:
        """The kind of attributions that are predicted, which decides what evidence is read."""
        return self.explainer.kind

    def arguments(self) -> Mapping[str, object]:
        """Constructor arguments besides the explainer, as JSON can hold them; or ``base``, a learner, in its place."""
        return {}

    @property
    def reading(self) -> Reading:
        """What the learner reads of the explained model beside the rows' own gradients and coalitions."""
        return Reading()

    def initial_state(self) -> StateT | None:
        """The state before any explanation of the model is known: None, which explains zero-shot."""
        return None

    @abstractmethod
    def adapt(self, support: Explanations) -> StateT | None:
        """Learn from the explained rows ``(*batch, K, M)`` of one model."""

    def require_numbers(self, support: Explanations) -> None:
        """Refuse attributions of another shape than the evidence, or that are not finite, and another precision.

        Raises:
            ValueError: for such attributions.
        """
        self.require_precision(support.attributions, support.evidence.effects)
        shape, expected = support.attributions.shape, support.evidence.players.shape
        if shape != expected:
            raise ValueError(
                f"attributions have the shape {tuple(shape)}, the evidence is of {tuple(expected)} rows and players: "
                "pass one value for each player of each row."
            )
        if not bool(support.attributions.isfinite().all()):
            raise ValueError("attributions of the support set are not finite: leave these rows out.")

    def require_precision(self, *numbers: Tensor) -> None:
        """Refuse numbers of another precision than the weights.

        Raises:
            ValueError: for such numbers.
        """
        own = next((weights.dtype for weights in self.parameters()), numbers[0].dtype)
        for other in {values.dtype for values in numbers} - {own}:
            raise ValueError(
                f"The learner computes in {own}, and was given numbers in {other}: pass rows.to(dtype={own}), or "
                f"use learner.to({other})."
            )

    def require_rows(self, support: Explanations) -> None:
        """Refuse an empty support set, for learners that have nothing to learn from it, and what is no number.

        Raises:
            ValueError: if there are no rows, or as for :meth:`require_numbers`.
        """
        self.require_numbers(support)
        if len(support) == 0:
            raise ValueError(
                f"{type(self).__name__} learns from explained rows, but the support set is empty: pass at least one row, or "
                "initial_state() to predict. In training, pass support_rows, as in --data.support_rows 16."
            )

    def corrected(self, prior: Prior, state: StateT, evidence: Evidence) -> Prior:
        """The explainer's proposal ``prior`` for the rows, with what the state adds to it."""
        return prior

    def propose(self, state: StateT | None, evidence: Evidence) -> Prior:
        """The adapted explainer's proposal for the rows, before the efficiency correction and coalitions refine it."""
        prior = self.explainer.trained_prior(evidence, features=state is not None)
        return prior if state is None else self.corrected(prior, state, evidence)

    def explain(self, state: StateT | None, evidence: Evidence) -> Prediction:
        """Attributions ``(*batch, N, M)`` that satisfy efficiency, with the gap that had to be corrected."""
        self.require_precision(evidence.effects)
        return self.explainer.complete(self.propose(state, evidence), evidence)

    def predict(self, state: StateT | None, evidence: Evidence) -> Float[Tensor, "*batch M"]:
        """Attributions ``(*batch, N, M)`` in units of the output; 0 for padding."""
        return self.explain(state, evidence).attributions

    def estimate_error(
        self, state: StateT | None, evidence: Evidence, attributions: Float[Tensor, "*batch M"]
    ) -> Float[Tensor, "*batch"]:
        """The relative squared error that nine in ten rows stay below, ``(*batch, N)``; NaN if unknown."""
        self.require_precision(evidence.effects)
        return self.explainer.estimate_error(self.propose(state, evidence), evidence, attributions)

    def explain_with_error(self, state: StateT | None, evidence: Evidence) -> tuple[Prediction, Float[Tensor, "*batch"]]:
        """The answers of :meth:`explain` and :meth:`estimate_error`, at little more than the cost of the first."""
        self.require_precision(evidence.effects)
        return self.explainer.complete_with_error(self.propose(state, evidence), evidence)

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """What meta-training minimises over a batch of tasks: the query loss after adapting on the support set."""
        predicted = self.predict(self.adapt(tasks.support), tasks.query.evidence)
        return relative_squared_error(predicted, tasks.query.attributions, tasks.query.variance)

    def begin_step(self, number: int) -> None:
        """Called before the loss of each step of meta-training with its number, from 0; annealed learners use it."""

    def condition_on(self, tasks: Sequence[Explanations]) -> None:
        """Learn from explained rows ``(1, N, M)`` of earlier models, oldest first, without gradient descent; most learners
        do nothing here.
        """

    def compile(self, *args: object, **kwargs: object) -> None:
        """Have :meth:`loss` run by compiled graphs from now on.

        Raises:
            ValueError: if the learner cannot.
        """
        raise ValueError(
            f"{type(self).__name__} is not compiled, only gradient-based learners are: train it with compile=False."
        )

    def support_weights(self, support: Explanations, evidence: Evidence) -> Float[Tensor, "*batch N K"]:
        """The weight of each of the support rows ``(*batch, K, M)`` in the explanations, ``(*batch, N, K)``.

        Raises:
            ValueError: if the learner does not explain by comparing rows.
        """
        raise ValueError(
            f"{type(self).__name__} does not explain rows by comparing them: use a MatchingNetwork or a "
            'PrototypicalNetwork, such as learner="matching".'
        )

    def parts(self) -> Mapping[str, list[nn.Parameter]]:
        """All parameters in groups that may be trained in alternation, by name."""
        return {"all": list(self.parameters())}

    def save(self, path: str | PathLike[str]) -> None:
        """Write ``path.json`` and ``path.safetensors``, to be read by :func:`load_learner`."""
        from captum_meta.learners.storage import save_learner

        save_learner(self, path)
