"""Gradients of a step's tasks, computed a few tasks at a time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from captum_meta.learners import MetaLearner
from captum_meta.optim.truncated import with_gradients
from captum_meta.types import ExplanationTask

_Share = TypeVar("_Share")
_Differentiated = tuple[Tensor, list[Tensor | None]]
"""A loss, and its gradients with respect to what is trained; None for what it does not reach."""


def loss_in_chunks(learner: MetaLearner, tasks: ExplanationTask, size: int) -> Tensor:
    r"""The learner's loss over T tasks, differentiated a chunk of tasks after another: the graph of one is kept at a time.

    .. math:: L = \sum_c \frac{T_c}{T} L_c, \qquad \nabla L = \sum_c \frac{T_c}{T} \nabla L_c

    Losses are means over tasks, so this is the loss of the whole, and a backward pass from it hands the parameters the
    gradient of the whole. What a learner draws at random, it draws anew for each chunk.

    Args:
        learner: whose parameters are trained.
        tasks: ``(T, ...)``.
        size: tasks of a chunk; the last may be smaller.

    >>> from captum_meta.learners import load_learner
    >>> from captum_meta.tasks import SyntheticTaskFamily
    >>> from captum_meta.training.steps import split
    >>> tasks = split(SyntheticTaskFamily(tasks_per_batch=3, rows=4)[0], 2)
    >>> learner = load_learner("zero-shot").requires_grad_(True)
    >>> torch.allclose(loss_in_chunks(learner, tasks, size=2), learner.loss(tasks))
    True
    """
    count = len(tasks.query.attributions)
    trained = _trained(learner)
    total: _Differentiated | None = None
    for start in range(0, count, size):
        chunk = tasks[start : start + size]
        part = _differentiated(learner.loss(chunk) * (len(chunk.query.attributions) / count), trained)
        total = part if total is None else _both(total, part)
    assert total is not None, "there are no tasks"
    return _with_known_gradients(total, trained)


def loss_of_shares(learner: MetaLearner, shares: Sequence[_Share], loss: Callable[[_Share], Tensor]) -> Tensor:
    """The mean loss of equal shares of a step's tasks, with gradients added up in the order of as many ranks.

    Each share is differentiated by itself. Of a power of two of shares, every second one is added up first, and so on:
    these are one rank's, where two share the step. One backward pass from the mean would add up what the shares send to a
    parameter in another order.

    Args:
        learner: whose parameters are trained.
        shares: the tasks of each.
        loss: of a share.
    """
    trained = _trained(learner)
    value, gradients = _in_halves([_differentiated(loss(share), trained) for share in shares])
    mean = [None if gradient is None else gradient / len(shares) for gradient in gradients]
    return _with_known_gradients((value / len(shares), mean), trained)


def _trained(learner: MetaLearner) -> list[Tensor]:
    return [parameter for parameter in learner.parameters() if parameter.requires_grad]


def _differentiated(loss: Tensor, trained: Sequence[Tensor]) -> _Differentiated:
    if not loss.requires_grad:  # all answers are exact, whatever the learner
        return loss, [None] * len(trained)
    return loss.detach(), list(torch.autograd.grad(loss, trained, allow_unused=True))


def _in_halves(parts: Sequence[_Differentiated]) -> _Differentiated:
    return parts[0] if len(parts) == 1 else _both(_in_halves(parts[::2]), _in_halves(parts[1::2]))


def _both(left: _Differentiated, right: _Differentiated) -> _Differentiated:
    return left[0] + right[0], [_sum(known, new) for known, new in zip(left[1], right[1], strict=True)]


def _with_known_gradients(known: _Differentiated, trained: Sequence[Tensor]) -> Tensor:
    reached = [(parameter, gradient) for parameter, gradient in zip(trained, known[1], strict=True) if gradient is not None]
    return with_gradients(known[0], [parameter for parameter, _ in reached], [gradient for _, gradient in reached])


def _sum(known: Tensor | None, new: Tensor | None) -> Tensor | None:
    """The sum of two gradients, either of which may be None: optimizers distinguish None from zero."""
    return known if new is None else new if known is None else known + new
