"""Explanation losses: how far predicted attributions are from a teacher's."""

from __future__ import annotations

import torch
from torch import Tensor


def relative_errors(predicted: Tensor, reference: Tensor, variance: Tensor | None = None) -> Tensor:
    """Squared error of each task's rows over their squared reference, ``(*batch, N, M)`` twice to ``(*batch,)``.

    The noise that ``variance`` tells of is taken off both. Tasks whose reference is zero, or nothing but noise, have no
    relative error and get 0.

    >>> relative_errors(torch.ones(2, 3), 2 * torch.ones(2, 3))
    tensor(0.2500)
    """
    squared = (predicted - reference).square().sum((-2, -1))
    size = reference.square().sum((-2, -1))
    if variance is not None:
        noise = variance.sum((-2, -1))
        squared, size = squared - noise, size - noise
    alive = size > 0
    return torch.where(alive, squared, 0.0).clamp(min=0) / torch.where(alive, size, 1.0)


def relative_squared_error(
    predicted: Tensor, reference: Tensor, variance: Tensor | None = None, floor: float = 0.0005
) -> Tensor:
    r"""Logarithm of the relative squared error of each task's rows, averaged over tasks.

    .. math:: \frac1T \sum_t \log\Big(\epsilon + \frac{\sum_{n,i} (\hat\phi_{tni} - \phi_{tni})^2}
        {\sum_{n,i} \phi_{tni}^2}\Big)

    The logarithm makes a halved error worth the same on an easy task as on a hard one.

    Args:
        predicted, reference: ``(*batch, N, M)``, in units of the output.
        variance: of the noise in ``reference``, same shape; its sum is taken off the squared error it causes.
        floor: the epsilon of the formula: errors well under it no longer count.

    >>> relative_squared_error(torch.ones(1, 2, 3), torch.ones(1, 2, 3), floor=1.0)
    tensor(0.)
    """
    return torch.log(floor + relative_errors(predicted, reference, variance)).mean()
