"""A loss over all inner steps, annealed to the last."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from captum_meta._numbers import at_least
from captum_meta.optim.hypergradients import Hypergradient, iterates
from captum_meta.optim.problem import InnerProblem, Tensors


class MultiStepLoss(Hypergradient):
    r"""The loss after every inner step, annealed to that after the last (MAML++, Antoniou et al. 2019).

    .. math:: L = \sum_{s=1}^S v_s \, \ell(\theta_s), \qquad v_s = \frac{1 - \min(1, n / N)}{S} \quad (s < S),
        \qquad v_S = 1 - \sum_{s < S} v_s

    at the outer step n (:meth:`begin_step`). An early step gets its gradient directly instead of through all later
    ones, which steadies long inner loops; from outer step N on only the end counts, at the cost of the plain loop.

    Args:
        outer_steps: N, over which the weights are annealed.
        second_order: whether the inner gradients are differentiated too, or taken as constants, as in
            :class:`FirstOrder`.

    Raises:
        ValueError: ``outer_steps`` is not positive.

    >>> schedule = MultiStepLoss(outer_steps=100)
    >>> schedule.weights(4)
    [0.25, 0.25, 0.25, 0.25]
    >>> schedule.begin_step(50)
    >>> schedule.weights(4)
    [0.125, 0.125, 0.125, 0.625]
    """

    def __init__(self, outer_steps: int, second_order: bool = True) -> None:
        self.outer_steps, self.second_order = at_least("outer_steps", outer_steps, 1), second_order
        self.number = 0

    def begin_step(self, number: int) -> None:
        self.number = number

    def weights(self, steps: int) -> list[float]:
        """Of the losses after each of ``steps`` inner steps."""
        early = max(0.0, 1 - self.number / self.outer_steps) / steps
        return [*[early] * (steps - 1), 1 - early * (steps - 1)]

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        *_, last = iterates(problem, start, self.second_order)
        return last

    def loss(self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor]) -> Tensor:
        if problem.steps == 0:
            return outcome(start)
        trajectory = iterates(problem, start, self.second_order)
        next(trajectory)
        weighted = zip(self.weights(problem.steps), trajectory, strict=True)
        return sum(weight * outcome(parameters) for weight, parameters in weighted if weight)  # type: ignore[return-value]
