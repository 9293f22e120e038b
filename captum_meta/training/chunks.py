"""The tasks of a step, a few at a time."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta.learners import MetaLearner
from captum_meta.optim.truncated import with_gradients
from captum_meta.types import ExplanationTask


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
    trained = [parameter for parameter in learner.parameters() if parameter.requires_grad]
    total: Tensor | None = None
    gradients: list[Tensor | None] = [None] * len(trained)
    for start in range(0, count, size):
        chunk = tasks[start : start + size]
        loss = learner.loss(chunk) * (len(chunk.query.attributions) / count)
        found = torch.autograd.grad(loss, trained, allow_unused=True)
        gradients = [_sum(known, new) for known, new in zip(gradients, found, strict=True)]
        total = _sum(total, loss.detach())
    assert total is not None, "there are no tasks"
    reached = [(parameter, gradient) for parameter, gradient in zip(trained, gradients, strict=True) if gradient is not None]
    return with_gradients(total, [parameter for parameter, _ in reached], [gradient for _, gradient in reached])


def _sum(known: Tensor | None, new: Tensor | None) -> Tensor | None:
    """Parameters that a loss does not reach have no gradient, which an optimizer tells from a zero."""
    return known if new is None else new if known is None else known + new
