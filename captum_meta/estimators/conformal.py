"""Conformal prediction: bounds on new rows' errors from those of calibration rows, whatever their distribution.

All of it rests on one assumption, that calibration rows and new rows are exchangeable, and holds for any number of them.

References: Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005. Lei, G'Sell, Rinaldo, Tibshirani and
Wasserman, *Distribution-Free Predictive Inference for Regression*, JASA 2018 (split conformal, errors over a difficulty).
Of rows that pass a rule, a quantile over calibration rows that pass it is valid if other rows have made the rule: this is a
Mondrian conformal predictor (section 4.5 of the book) with two categories.
"""

from __future__ import annotations

from math import ceil, log, log1p

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

_ROUNDING = 1e-9
"""Subtracted before rounding up, so that (1 + 19) * (1 - .05) gives 19."""


def rows_needed(alpha: float) -> int:
    r"""The least number of calibration rows with a finite bound at level ``alpha``: :math:`\lceil 1/\alpha \rceil - 1`.

    Raises:
        ValueError: if ``alpha`` is not between 0 and 1.

    >>> rows_needed(0.1), rows_needed(0.05)
    (9, 19)
    """
    _check_level("alpha", alpha)
    return max(1, ceil(1 / alpha - _ROUNDING) - 1)


def conformal_quantile(scores: Float[Tensor, "*batch n"], alpha: float) -> Float[Tensor, "*batch"]:
    r"""The bound that a new row's score keeps with probability at least ``1 - alpha``.

    .. math:: \hat q = s_{(k)}, \quad k = \lceil (n + 1)(1 - \alpha) \rceil

    the k-th smallest of the n calibration rows' scores, infinite if k > n. Without ties the probability is below
    :math:`1 - \alpha + 1 / (n + 1)`.

    Args:
        scores: ``(*batch, n)``, NaN counts as infinite.
        alpha: the probability of a miss that is accepted, between 0 and 1.

    Returns:
        ``(*batch,)``.

    Raises:
        ValueError: if ``alpha`` is not between 0 and 1.

    >>> conformal_quantile(torch.arange(1.0, 10.0), alpha=0.1)
    tensor(9.)
    """
    _check_level("alpha", alpha)
    count = scores.shape[-1]
    rank = ceil((count + 1) * (1 - alpha) - _ROUNDING)
    if rank > count:
        return scores.new_full(scores.shape[:-1], torch.inf)
    return scores.nan_to_num(torch.inf, torch.inf).sort(-1).values[..., rank - 1]


def binomial_tail(misses: Int[Tensor, "*batch"], rows: Int[Tensor, "*batch"], alpha: float) -> Float[Tensor, "*batch"]:
    r"""The p-value of at least ``alpha`` missing where ``misses`` of ``rows`` do: :math:`P(\mathrm{Bin}(n, \alpha) \le k)`.

    Args:
        misses, rows: whole numbers of equal shape, the former at most the latter.
        alpha: between 0 and 1.

    Returns:
        Of the same shape, float64; 1 where there are no rows.

    >>> binomial_tail(torch.tensor([0, 1]), torch.tensor([2, 2]), 0.5)
    tensor([0.2500, 0.7500], dtype=torch.float64)
    """
    _check_level("alpha", alpha)
    n = rows.double().unsqueeze(-1)
    k = torch.arange(int(rows.max()) + 1 if rows.numel() else 1, device=rows.device, dtype=torch.float64)
    inside = k <= torch.minimum(misses, rows).unsqueeze(-1)
    ways = torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma((n - k).clamp(min=0) + 1)
    terms = ways + k * log(alpha) + (n - k) * log1p(-alpha)
    return torch.where(inside, terms, -torch.inf).logsumexp(-1).exp().clamp(max=1.0)


def exceedance_tail(exceeding: int, new: int, rows: int, rank: int) -> float:
    r"""The probability that at least ``exceeding`` of ``new`` rows are above the ``rank``-th smallest of ``rows`` others.

    .. math:: P(K \ge k), \quad K \sim \mathrm{BetaBinomial}(\text{new}, n - r + 1, r)

    which is the distribution of K where all rows are exchangeable and no scores tie.

    >>> round(exceedance_tail(1, new=1, rows=19, rank=19), 6)
    0.05
    """
    k = torch.arange(exceeding, new + 1, dtype=torch.float64)
    first, second = torch.tensor(rows - rank + 1.0).double(), torch.tensor(float(rank)).double()
    total = torch.tensor(float(new)).double()
    ways = torch.lgamma(total + 1) - torch.lgamma(k + 1) - torch.lgamma(total - k + 1)
    terms = ways + _log_beta(k + first, total - k + second) - _log_beta(first, second)
    return min(1.0, float(terms.logsumexp(0).exp())) if len(k) else 0.0


def stopping_levels(sizes: Float[Tensor, "n L"], limit: Tensor | float) -> Int64[Tensor, " n"]:
    """The first level at which each row's size is within a limit.

    Args:
        sizes: ``(n, L)``, bounds in units of the scale, at each level of effort; NaN is never within.
        limit: ``()``.

    Returns:
        ``(n,)`` int64, L where none is.

    >>> stopping_levels(torch.tensor([[3.0, 1.0], [3.0, 2.0]]), limit=1.5)
    tensor([1, 2])
    """
    within = sizes <= limit
    return torch.where(within.any(-1), within.to(torch.uint8).argmax(-1), sizes.shape[-1])


def passing_ratios(
    ratios: Float[Tensor, "n L"], sizes: Float[Tensor, "n L"], limit: Tensor | float, tolerance: float
) -> Float[Tensor, " passed"]:
    r"""Smallest scales at which the bounds of the rows that pass hold, where no bound is larger than the tolerance.

    A row passes if it stops at some level. With the scale q its bound is then :math:`\min(q \cdot \text{size},
    \text{tolerance})`, so that no scale is enough where the error itself is larger.

    Args:
        ratios: ``(n, L)``, errors over difficulties.
        sizes, limit: as for :func:`stopping_levels`.
        tolerance: the largest bound.

    Returns:
        ``(passed,)``, infinite where no scale is enough.

    >>> passing_ratios(torch.tensor([[2.0], [3.0], [1.0]]), torch.tensor([[1.0], [1.0], [9.0]]), limit=5.0, tolerance=2.5)
    tensor([2., inf])
    """
    levels = stopping_levels(sizes, limit)
    passed = (levels < sizes.shape[-1]).nonzero().flatten()
    ratio, size = ratios[passed, levels[passed]], sizes[passed, levels[passed]]
    return torch.where((ratio == 0) | (ratio * size <= tolerance), ratio, torch.inf)


def likely_limit(
    ratios: Float[Tensor, "n L"],
    sizes: Float[Tensor, "n L"],
    tolerance: float,
    alpha: float,
    rows: int,
    risk: float,
    most: float,
) -> Float[Tensor, ""]:
    """The largest limit with which the bounds of rows that pass are likely to hold within the tolerance.

    It is estimated from ``rows`` other rows, which pass as often. The quantile of their :func:`passing_ratios` should be
    infinite with a probability of at most ``risk``. If no limit has that, it is the limit of least probability, if this is
    at most ``most``.

    Args:
        ratios, sizes, tolerance: as for :func:`passing_ratios`.
        alpha: of the quantile.

    Returns:
        ``()``, one of the sizes; minus infinity, so that no row passes, where there is none.
    """
    best, least = sizes.new_full((), -torch.inf), torch.inf
    for limit in sizes[sizes.isfinite()].unique().flip(0):
        needed = passing_ratios(ratios, sizes, limit, tolerance)
        others = round(len(needed) * rows / len(sizes))
        fails = chance_of_no_quantile(int(needed.isinf().sum()), len(needed), others, alpha)
        if fails <= most and fails < least:
            best, least = limit, fails
        if fails <= risk:
            break
    return best


def chance_of_no_quantile(infinite: int, known: int, rows: int, alpha: float) -> float:
    """Bound on the probability that the quantile of ``rows`` numbers is infinite, if ``infinite`` of ``known`` others are.

    All are exchangeable. Counted as if a number were infinite once it is above the largest known one that is not.

    >>> round(chance_of_no_quantile(0, known=20, rows=40, alpha=0.1), 3)
    0.187
    """
    allowed = rows - ceil((rows + 1) * (1 - alpha) - _ROUNDING)
    if allowed < 0 or infinite >= known:
        return 1.0
    return exceedance_tail(allowed + 1, rows, known, known - infinite)


def _log_beta(a: Float[Tensor, "*a"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*c"]:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _check_level(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(
            f"{name} must be between 0 and 1, got {value}: pass the share of misses that you accept, such as 0.1."
        )
