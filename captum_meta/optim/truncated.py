"""Truncated backpropagation through long inner loops, in windows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
from torch import Tensor

from captum_meta._numbers import at_least
from captum_meta.optim.hypergradients import Hypergradient
from captum_meta.optim.problem import InnerProblem, Tensors


class Truncated(Hypergradient):
    r"""Through windows of a few steps, each as if its start were constant (truncated backpropagation through time).

    .. math:: L = \frac1W \sum_{w=1}^W \ell(\theta_{w}), \qquad
        \nabla L \approx \frac1W \sum_w \frac{\partial \ell(\theta_w)}{\partial \phi}\Big|_{\theta_{w-1}}

    where theta_w ends window w and phi are the rule's parameters. Memory does not grow with the number of windows; the
    gradient is biased towards what pays soon, and exact where one window covers the loop. The first window's loss also
    reaches the start of the loop. Whatever else ``problem.loss`` and the outcome close over counts as constant.

    Args:
        length: steps of a window.
        second_order: whether the inner gradients are differentiated too, or taken as constants, as in
            :class:`FirstOrder` and by Andrychowicz et al. 2016.
    """

    def __init__(self, length: int, second_order: bool = True) -> None:
        self.length, self.second_order = at_least("length", length, 1), second_order

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        """Differentiable through the last window only."""
        *_, last = windows(problem, start, self.length, self.second_order)
        return last

    def loss(self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor]) -> Tensor:
        known = [*problem.rule.parameters(), *start.values()]
        known = [value for value in known if value.requires_grad]
        count = max(1, -(-problem.steps // self.length))
        value, gradients = torch.zeros(()), [torch.zeros_like(each) for each in known]
        for end in windows(problem, start, self.length, self.second_order):
            loss = outcome(end) / count
            found = torch.autograd.grad(loss, known, allow_unused=True, materialize_grads=True)
            gradients = [sum_ + new for sum_, new in zip(gradients, found, strict=True)]
            value = value.to(loss) + loss.detach()
        return with_gradients(value, known, gradients)


def windows(problem: InnerProblem, start: Tensors, length: int, create_graph: bool) -> Iterator[Tensors]:
    """The parameters at the end of each window of ``length`` steps, whose start is a constant.

    Args:
        problem, start: the inner loop.
        length: of a window; the last may be shorter.
        create_graph: whether inner gradients are to be differentiated again.
    """
    memory = problem.rule.initial_memory(start)
    parameters = start
    for first in range(0, problem.steps, length):
        for step in range(first, min(first + length, problem.steps)):
            gradients = problem.gradient(parameters, create_graph)
            parameters, memory = problem.rule.update(step, parameters, gradients, memory)
        yield parameters
        parameters, memory = ({n: v.detach() for n, v in some.items()} for some in (parameters, memory))
    if problem.steps == 0:
        yield start


def with_gradients(value: Tensor, inputs: Sequence[Tensor], gradients: Sequence[Tensor]) -> Tensor:
    """A scalar of the given value, whose gradient with respect to ``inputs`` is the one given."""
    pairs = zip(inputs, gradients, strict=True)
    linear = sum(((each * gradient.detach()).sum() for each, gradient in pairs), start=torch.zeros_like(value))
    return value.detach() + (linear - linear.detach())
