"""Hypergradients: derivatives of an inner loop's outcome with respect to its start and its rule."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator

from torch import Tensor

from captum_meta.optim.problem import InnerProblem, Tensors

KEEPS_GRAPH = (
    "keeps the graph of an inner gradient for a second backward pass, which PyTorch denies compiled graphs that were once "
    "differentiated without (donated buffers)"
)


class Hypergradient(ABC):
    """``solve(problem, start)``: the parameters after ``problem.steps`` steps, differentiable in this class's own way.

    What they depend on and how it is differentiated: ``start``, the rule's parameters, and everything that
    ``problem.loss`` closes over.
    """

    second_order: bool = True
    """Whether the inner gradients are differentiated too. Where not, the inner loss may close over constants only."""

    uncompiled: str | None = None
    """Why inner gradients cannot be compiled graphs, such as :data:`KEEPS_GRAPH`; None where they can."""

    @abstractmethod
    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        """Fast parameters ``(T, *shape)`` of each task after its inner loop."""

    def begin_step(self, number: int) -> None:  # noqa: B027
        """Called before the loss of each outer step with its number, from 0; annealed hypergradients use it."""

    def loss(self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor]) -> Tensor:
        """The training loss: a scalar function of the fast parameters at the end of the inner loop.

        Hypergradients override it if they use intermediate steps, or estimate the gradient of a scalar only.
        """
        return outcome(self.solve(problem, start))


class Backprop(Hypergradient):
    """Through every step, second derivatives included: exact; memory grows with the steps (MAML, Finn et al. 2017)."""

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        return _last(iterates(problem, start, create_graph=True))


class FirstOrder(Hypergradient):
    """As if the inner gradients were constants: no second derivatives (first-order MAML).

    The start receives the gradient of the outcome; rates still learn, from the steps that they scale.
    """

    second_order = False

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        return _last(iterates(problem, start, create_graph=False))


def iterates(problem: InnerProblem, start: Tensors, create_graph: bool) -> Iterator[Tensors]:
    """The parameters before the first step and after every step."""
    memory = problem.rule.initial_memory(start)
    parameters = start
    yield parameters
    for step in range(problem.steps):
        gradients = problem.gradient(parameters, create_graph)
        parameters, memory = problem.rule.update(step, parameters, gradients, memory)
        yield parameters


def _last(trajectory: Iterator[Tensors]) -> Tensors:
    *_, last = trajectory
    return last
