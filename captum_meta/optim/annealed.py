"""One hypergradient in the first outer steps, another later."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from captum_meta._numbers import at_least
from captum_meta.optim.hypergradients import Hypergradient
from captum_meta.optim.problem import InnerProblem, Tensors


class Annealed(Hypergradient):
    r"""Cheap derivatives in the first outer steps, exact ones later.

    .. math:: \nabla L = \begin{cases} \nabla^{\text{early}} L & n < N \\ \nabla^{\text{late}} L & n \ge N \end{cases}

    at the outer step n (:meth:`begin_step`). ``Annealed(FirstOrder(), Backprop(), 1000)`` is the derivative-order annealing
    of MAML++ (Antoniou et al. 2019): first order for a thousand outer steps, then second.

    Args:
        early, late: the two hypergradients.
        outer_steps: N, how many outer steps are early.

    >>> from captum_meta.optim import Backprop, FirstOrder
    >>> order = Annealed(FirstOrder(), Backprop(), outer_steps=100)
    >>> type(order.current).__name__
    'FirstOrder'
    >>> order.begin_step(100)
    >>> type(order.current).__name__
    'Backprop'
    """

    def __init__(self, early: Hypergradient, late: Hypergradient, outer_steps: int) -> None:
        self.early, self.late, self.outer_steps = early, late, at_least("outer_steps", outer_steps, 0)
        self.uncompiled = early.uncompiled or late.uncompiled
        self.current = early if outer_steps > 0 else late

    @property
    def second_order(self) -> bool:  # type: ignore[override]
        return self.current.second_order

    def begin_step(self, number: int) -> None:
        self.current = self.early if number < self.outer_steps else self.late
        self.current.begin_step(number)

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        return self.current.solve(problem, start)

    def loss(self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor]) -> Tensor:
        return self.current.loss(problem, start, outcome)
