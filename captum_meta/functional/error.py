"""Distance of attributions from a reference, such as the exact or the teacher's answer."""

from __future__ import annotations

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.functional._arguments import Reduction, Tensors, as_tuple, reduce
from captum_meta.functional._players import Players


def squared_errors(
    attributions: Tensors, reference: Tensors, feature_mask: Tensors | None = None
) -> tuple[Float[Tensor, " B"], Float[Tensor, " B"]]:
    """Each row's squared error and its squared reference, both ``(B,)``."""
    players = Players.of(as_tuple(reference, "reference"), feature_mask)
    expected = players.values(reference, "reference")
    difference = players.values(attributions) - expected
    return difference.square().sum(1), expected.square().sum(1)


def attribution_error(
    attributions: Tensors,
    reference: Tensors,
    feature_mask: Tensors | None = None,
    *,
    reduction: Reduction | Literal["pooled"] = "pooled",
) -> Float[Tensor, "*reduced"]:
    r"""Relative squared error of attributions.

    .. math:: \frac{\sum_{n,i} (\hat\phi_{ni} - \phi_{ni})^2}{\sum_{n,i} \phi_{ni}^2}

    with rows :math:`n` and players :math:`i`. Range: :math:`[0, \infty)`, 1 for attributions of zero. Lower is better.
    It is one minus the uncentred coefficient of determination.

    Args:
        attributions, reference: ``(B, *features)``.
        feature_mask: groups, each counted once.
        reduction: ``"pooled"`` is the formula, over all rows; ``"mean"``, ``"sum"`` and ``"none"`` are over the rows'
            own ratios (0 where a row and its reference are all zero, infinite where only the reference is).

    Reference: Theil, *Applied Economic Forecasting*, 1966 (the square of the coefficient U).

    >>> attribution_error(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 1.0]]))
    tensor(0.5000)
    """
    squared, size = squared_errors(attributions, reference, feature_mask)
    if reduction == "pooled":
        return squared.sum() / size.sum()
    return reduce(relative(squared, size), reduction)


def relative(squared: Float[Tensor, "*rows"], size: Float[Tensor, "*rows"]) -> Float[Tensor, "*rows"]:
    """The rows' own ratios, with 0 / 0 = 0."""
    return torch.where((squared == 0) & (size == 0), 0, squared / size)
