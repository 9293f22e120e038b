"""Explanation losses between predicted attributions and a teacher's.

Losses relative to the reference have first and second derivatives that are finite in single precision wherever the numbers
are: a reference shorter than the fourth root of the smallest number of its dtype (3e-10 in single precision) counts as zero.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor


def relative_errors(
    predicted: Float[Tensor, "*batch N M"],
    reference: Float[Tensor, "*batch N M"],
    variance: Float[Tensor, "*batch N M"] | None = None,
) -> Float[Tensor, "*batch"]:
    """Squared error of each task's rows over their squared reference, ``(*batch, N, M)`` twice to ``(*batch,)``.

    The noise, of this ``variance``, is subtracted from both. Tasks whose reference is zero, or nothing but noise, have no
    relative error and get 0.

    >>> relative_errors(torch.ones(2, 3), 2 * torch.ones(2, 3))
    tensor(0.2500)
    """
    squared = (predicted - reference).square().sum((-2, -1))
    size = reference.square().sum((-2, -1))
    if variance is not None:
        noise = variance.sum((-2, -1))
        squared, size = squared - noise, size - noise
    alive = size > _least(size) ** 2
    return torch.where(alive, squared, 0.0).clamp(min=0) / torch.where(alive, size, 1.0)


def relative_squared_error(
    predicted: Float[Tensor, "*batch N M"],
    reference: Float[Tensor, "*batch N M"],
    variance: Float[Tensor, "*batch N M"] | None = None,
    floor: float = 0.0005,
) -> Float[Tensor, ""]:
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


def mean_squared_error(
    predicted: Float[Tensor, "*batch N M"],
    reference: Float[Tensor, "*batch N M"],
    variance: Float[Tensor, "*batch N M"] | None = None,
) -> Float[Tensor, ""]:
    r"""Squared error in units of the output, averaged over tasks, rows and players; noise taken off.

    .. math:: \frac1{TNM} \sum_{t,n,i} \big[(\hat\phi_{tni} - \phi_{tni})^2 - \sigma^2_{tni}\big]

    Args: those of :func:`relative_squared_error`.

    >>> mean_squared_error(torch.ones(2, 3), 3 * torch.ones(2, 3))
    tensor(4.)
    """
    squared = (predicted - reference).square().mean()
    return squared if variance is None else squared - variance.mean()


def scaled_squared_error(
    predicted: Float[Tensor, "*batch N M"],
    reference: Float[Tensor, "*batch N M"],
    variance: Float[Tensor, "*batch N M"] | None = None,
) -> Float[Tensor, ""]:
    r"""Squared error of each task's rows over their squared reference, averaged over tasks; no output's scale matters.

    .. math:: \frac1T \sum_t \frac{\sum_{n,i} (\hat\phi_{tni} - \phi_{tni})^2}{\sum_{n,i} \phi_{tni}^2}

    A quadratic function of the predictions, unlike :func:`relative_squared_error`: one rate of descent suits all tasks.
    Noise is not taken off the squared error, whose gradient it leaves unchanged on average, but off the reference.

    Args: those of :func:`relative_squared_error`.

    >>> scaled_squared_error(torch.ones(1, 2, 3), 2 * torch.ones(1, 2, 3))
    tensor(0.2500)
    """
    size = reference.square().sum((-2, -1))
    if variance is not None:
        size = torch.maximum(size - variance.sum((-2, -1)), size / 10)
    squared = (predicted - reference).square().sum((-2, -1))
    alive = size > _least(size) ** 2
    return (torch.where(alive, squared, 0.0) / torch.where(alive, size, 1.0)).mean()


def cosine_and_magnitude(
    predicted: Float[Tensor, "*batch N M"],
    reference: Float[Tensor, "*batch N M"],
    variance: Float[Tensor, "*batch N M"] | None = None,
) -> Float[Tensor, ""]:
    r"""Direction and length of each row's attributions apart, averaged over rows and tasks.

    .. math:: 1 - \frac{\hat\phi \cdot \phi}{(|\hat\phi| + \epsilon) (|\phi| + \epsilon)}
        + \log^2\frac{|\hat\phi| + \epsilon}{|\phi| + \epsilon}

    with epsilon a thousandth of the task's root mean squared row length; tasks whose reference is zero give 0.
    ``variance`` is not used.

    Args: those of :func:`relative_squared_error`.

    >>> once, twice = torch.ones(1, 2, 3), 2 * torch.ones(1, 2, 3)
    >>> float(cosine_and_magnitude(once, once)) < 0.01 < float(cosine_and_magnitude(once, twice))
    True
    """
    typical = _length(reference).square().mean(-1, keepdim=True).sqrt()
    alive = typical > _least(typical)
    small = 1e-3 * torch.where(alive, typical, 1.0)
    far, near = (_length(values) + small for values in (predicted, reference))
    cosine = (predicted / far.unsqueeze(-1) * reference / near.unsqueeze(-1)).sum(-1)
    return torch.where(alive, 1 - cosine + (far.log() - near.log()).square(), 0.0).mean()


def importance_cross_entropy(
    predicted: Float[Tensor, "*batch N M"],
    reference: Float[Tensor, "*batch N M"],
    variance: Float[Tensor, "*batch N M"] | None = None,
) -> Float[Tensor, ""]:
    r"""Cross-entropy between the players' shares in the absolute attributions, averaged over rows and tasks.

    .. math:: -\sum_i p_i \log q_i, \qquad p_i = \frac{|\phi_i|}{\sum_j |\phi_j|}, \quad
        q_i = \frac{|\hat\phi_i| + \epsilon}{\sum_j (|\hat\phi_j| + \epsilon)}

    with epsilon a thousandth of the row's mean absolute reference. It tells neither sign nor size; rows whose reference is
    zero give 0. ``variance`` is not used.

    Args: those of :func:`relative_squared_error`.

    >>> importance_cross_entropy(torch.tensor([[[3.0, 3.0]]]), torch.tensor([[[1.0, -1.0]]]))
    tensor(0.6931)
    """
    importance = reference.abs()
    typical = importance.mean(-1, keepdim=True)
    alive = typical > _least(typical)
    typical = torch.where(alive, typical, 1.0)
    guesses = predicted.abs() + 1e-3 * typical
    unlikely = guesses.sum(-1, keepdim=True).log() - guesses.log()
    return torch.where(alive, importance / importance.shape[-1] / typical * unlikely, 0.0).sum(-1).mean()


def _length(values: Float[Tensor, "*batch M"]) -> Float[Tensor, "*batch"]:
    """Euclidean length over the last dimension, with a gradient of 0 at 0."""
    squares = values.square().sum(-1)
    alive = squares > _least(squares) ** 2
    return torch.where(alive, torch.where(alive, squares, 1.0).sqrt(), 0.0)


def _least(values: Tensor) -> float:
    """Lengths below it count as zero: the fourth power of its reciprocal is still finite."""
    return float(torch.finfo(values.dtype).tiny) ** 0.25
