"""Similarities of keys: ``(*batch, N, H)`` queries and ``(*batch, K, H)`` support rows to scores ``(*batch, N, K)``.

A softmax over the scores weighs the support rows. Any callable of that form serves as well. Each class here has a learned
temperature, by which its scores are divided.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from math import log

import torch
from torch import Tensor, nn

from captum_meta._numbers import positive
from captum_meta.nn.blocks import Described


class Similarity(Described, nn.Module, ABC):
    """Scores of support keys for query keys, over a learned temperature."""

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        self.log_temperature = nn.Parameter(torch.tensor(log(positive("temperature", temperature))))

    @abstractmethod
    def compare(self, queries: Tensor, keys: Tensor) -> Tensor:
        """Scores at temperature 1."""

    def forward(self, queries: Tensor, keys: Tensor) -> Tensor:
        return self.compare(queries, keys) / self.log_temperature.exp()


class CosineSimilarity(Similarity):
    r"""Cosine of the angle (Vinyals et al. 2016): :math:`q \cdot s / (|q| |s|)`, over a temperature of 0.1 at first.

    >>> CosineSimilarity()(torch.tensor([[3.0, 0.0]]), torch.tensor([[1.0, 0.0], [0.0, 2.0]])).detach().round().tolist()
    [[10.0, 0.0]]
    """

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__(temperature)

    def compare(self, queries: Tensor, keys: Tensor) -> Tensor:
        return nn.functional.normalize(queries, dim=-1) @ nn.functional.normalize(keys, dim=-1).mT


class EuclideanSimilarity(Similarity):
    r"""The negative squared Euclidean distance (Snell et al. 2017): :math:`-|q - s|^2`.

    >>> EuclideanSimilarity()(torch.tensor([[3.0, 0.0]]), torch.tensor([[3.0, 2.0], [3.0, 0.0]])).tolist()
    [[-4.0, 0.0]]
    """

    def compare(self, queries: Tensor, keys: Tensor) -> Tensor:
        squares = queries.square().sum(-1).unsqueeze(-1) + keys.square().sum(-1).unsqueeze(-2)
        return (2 * queries @ keys.mT - squares).clamp(max=0)


class DistanceSimilarity(Similarity):
    r"""The negative Euclidean distance, not squared: :math:`-\|q - s\|_2`, as in nearest-neighbour retrieval.

    It falls off more slowly than :class:`EuclideanSimilarity`, so far support rows keep some weight. Where a query is its
    own support row the gradient is 0.

    >>> DistanceSimilarity()(torch.tensor([[3.0, 0.0]]), torch.tensor([[0.0, 4.0], [3.0, 0.0]])).tolist()
    [[-5.0, -0.0]]
    """

    def compare(self, queries: Tensor, keys: Tensor) -> Tensor:
        squares = (queries.unsqueeze(-2) - keys.unsqueeze(-3)).square().sum(-1)
        apart = squares > 0
        return -torch.where(apart, torch.where(apart, squares, 1.0).sqrt(), 0.0)


class MLPSimilarity(Similarity):
    r"""A learned function of both keys and their distance: :math:`v \cdot g(A q + B s + C |q - s|)` with a GELU for g.

    Args:
        width: H.
        hidden: units of the hidden layer.
    """

    def __init__(self, width: int, hidden: int = 16) -> None:
        super().__init__()
        self.width, self.hidden = width, hidden
        self.query, self.key = nn.Linear(width, hidden), nn.Linear(width, hidden, bias=False)
        self.distance, self.out = nn.Linear(width, hidden, bias=False), nn.Linear(hidden, 1)

    def compare(self, queries: Tensor, keys: Tensor) -> Tensor:
        apart = (queries.unsqueeze(-2) - keys.unsqueeze(-3)).abs()
        hidden = self.query(queries).unsqueeze(-2) + self.key(keys).unsqueeze(-3) + self.distance(apart)
        return self.out(nn.functional.gelu(hidden)).squeeze(-1)


class AttentionSimilarity(Similarity):
    r"""Scaled dot products in learned subspaces (Vaswani et al. 2017), the heads joined by a soft maximum.

    .. math:: s(q, k) = \log \frac1h \sum_j \exp\big( (W_j q) \cdot (U_j k) / \sqrt d \big)

    so that the softmax over k weighs each support row by the sum of what the heads give it.

    Args:
        width: H.
        heads: of ``width // heads`` dimensions each.

    Raises:
        ValueError: if ``heads`` does not divide ``width``.
    """

    def __init__(self, width: int, heads: int = 4) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"{heads} heads do not divide keys of width {width}: choose heads that do.")
        self.width, self.heads = width, heads
        self.query, self.key = nn.Linear(width, width, bias=False), nn.Linear(width, width, bias=False)

    def compare(self, queries: Tensor, keys: Tensor) -> Tensor:
        left, right = (
            part.unflatten(-1, (self.heads, -1)).transpose(-2, -3) for part in (self.query(queries), self.key(keys))
        )
        products = left @ right.mT / left.shape[-1] ** 0.5
        return products.logsumexp(-3) - torch.tensor(float(self.heads)).log().to(products)
