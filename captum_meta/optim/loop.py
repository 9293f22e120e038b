"""Meta-learning of any module: a batch of tasks, each with weights of its own."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.func import vmap

from captum_meta._numbers import at_least
from captum_meta.optim.hypergradients import Backprop, Hypergradient, iterates
from captum_meta.optim.per_task import call_per_task, fast_names, same_for_all
from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.optim.rules import UpdateRule

Rows = tuple[Tensor, Tensor]
"""Inputs and targets, each ``(T, K, ...)``: K rows of each of T tasks."""


class InnerLoop(nn.Module):
    r"""Adapts a module to tasks by a few steps of a rule, from an initialisation that is meta-learned.

    .. math:: \theta_{s+1} = \text{rule}(\theta_s, \nabla \ell_{support}(\theta_s)), \qquad
        \min_{\theta_0, \text{rule}} \sum_{tasks} \ell_{query}(\theta_S)

    All tasks of a batch run side by side. With :class:`GradientDescent` this is MAML (Finn et al. 2017), with
    :class:`ElementwiseSGD` Meta-SGD, with :class:`CoordinatewiseLSTM` a learned optimizer; with
    ``hypergradient=FirstOrder()`` first-order MAML, with :class:`Implicit` implicit MAML; ``fast=["head.*"]`` is ANIL.
    Its ``parameters()``, those of the module and of the rule, are what an outer optimizer trains on :meth:`meta_loss`.

    Args:
        module: any network; its parameters are the initialisation.
        loss: of one task, from predictions and targets, ``(K, ...)`` each, to a number.
        rule: how a gradient changes the fast parameters.
        steps: of the inner loop in training, at least 0.
        hypergradient: how training differentiates the inner loop; through all of it by default.
        fast: names of the parameters that adapt, as patterns; by default all that require a gradient.

    The module is called in the mode that it is in: a ``BatchNorm`` that trains normalises each task by its own rows, and
    counts them into its running statistics, as in any training.

    Raises:
        ValueError: if a pattern fits no parameter, none requires a gradient, or the loss of a task is not one number.

    >>> from captum_meta.optim import GradientDescent
    >>> loop = InnerLoop(nn.Linear(1, 1), nn.functional.mse_loss, GradientDescent(0.1), steps=3)
    >>> x, slopes = torch.randn(4, 10, 1), torch.tensor([1.0, 2.0, 3.0, 4.0]).reshape(4, 1, 1)  # four tasks
    >>> loop.meta_loss((x, slopes * x), (x, slopes * x)).backward()
    >>> loop(loop.adapt((x, slopes * x), steps=100), x).shape
    torch.Size([4, 10, 1])
    """

    def __init__(
        self,
        module: nn.Module,
        loss: Callable[[Tensor, Tensor], Tensor],
        rule: UpdateRule,
        steps: int = 1,
        hypergradient: Hypergradient | None = None,
        fast: Sequence[str] | None = None,
    ) -> None:
        super().__init__()
        self.module, self.loss, self.rule = module, loss, rule
        self.steps = at_least("steps", steps, 0)
        self.hypergradient = hypergradient or Backprop()
        self.names = _trained(module) if fast is None else fast_names(module, fast)

    def start(self, n_tasks: int) -> Tensors:
        """The fast parameters before the first step, ``(T, *shape)`` by name: the same for all tasks."""
        return same_for_all(self.module, self.names, n_tasks)

    def adapt(self, support: Rows, steps: int | None = None) -> Tensors:
        """The fast parameters of each task after ``steps`` on its support rows, as plain tensors ``(T, *shape)``.

        Args:
            support: inputs and targets, ``(T, K, ...)``.
            steps: those of training by default.
        """
        _check(support)
        problem = self._problem(support, self.steps if steps is None else at_least("steps", steps, 0))
        with torch.enable_grad():
            *_, last = iterates(problem, self.start(len(support[0])), create_graph=False)
        return {name: value.detach() for name, value in last.items()}

    def forward(self, parameters: Tensors, inputs: Tensor) -> Tensor:
        """Predictions ``(T, K, ...)`` of each task's own network."""
        return call_per_task(self.module, "forward", parameters, inputs)

    def meta_loss(self, support: Rows, query: Rows) -> Tensor:
        """Mean over the tasks of the query rows' loss after the inner loop, differentiable by the hypergradient."""
        _check(support, query)
        start = self.start(len(support[0]))
        outcome = lambda fast: self._total(fast, query) / len(query[0])  # noqa: E731
        return self.hypergradient.loss(self._problem(support, self.steps), start, outcome)

    def _problem(self, support: Rows, steps: int) -> InnerProblem:
        return InnerProblem(lambda parameters: self._total(parameters, support), self.rule, steps)

    def _total(self, parameters: Tensors, rows: Rows) -> Tensor:
        inputs, right = rows
        losses = vmap(self.loss)(self(parameters, inputs), right)
        if losses.dim() != 1:
            raise ValueError(
                f"The loss of one task has the shape {tuple(losses.shape[1:])}, but must be one number: take a loss that "
                "averages, such as torch.nn.functional.mse_loss."
            )
        return losses.sum()


def _check(*sets: Rows) -> None:
    """Each set has rows, and all have the same tasks.

    Raises:
        ValueError: if there are no tasks or no rows, of which a mean loss would be no number, or other tasks in a set.
    """
    counts = {len(part) for rows in sets for part in rows}
    if len(counts) > 1:
        raise ValueError(f"There are {sorted(counts)} tasks in inputs and answers: pass (T, K, ...) with the same T in all.")
    if any(0 in rows[0].shape[:2] for rows in sets):
        shapes = [tuple(rows[0].shape) for rows in sets]
        raise ValueError(
            f"A task needs support and query rows, but inputs have the shapes {shapes}: pass at least one of each."
        )


def _trained(module: nn.Module) -> list[str]:
    names = [name for name, value in module.named_parameters() if value.requires_grad]
    if not names:
        raise ValueError(
            'No parameter of the module requires a gradient: pass the names of those that adapt, as in fast=["*"] for all.'
        )
    return names
