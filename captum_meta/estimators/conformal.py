"""Conformal prediction: bounds on new rows' errors from those of calibration rows, whatever their distribution.

All of it rests on one assumption, that calibration rows and new rows are exchangeable, and holds for any number of them.

References: Vovk, Gammerman and Shafer, *Algorithmic Learning in a Random World*, 2005. Lei, G'Sell, Rinaldo, Tibshirani and
Wasserman, *Distribution-Free Predictive Inference for Regression*, JASA 2018 (split conformal, errors over a difficulty).
Angelopoulos, Bates, Candès, Jordan and Lei, *Learn then Test*, 2021. Angelopoulos, Bates, Fisch, Lei and Schuster,
*Conformal Risk Control*, 2022, which for the loss of a miss is the quantile used here.
"""

from __future__ import annotations

from math import ceil, log, log1p

import torch
from jaxtyping import Float, Int, Int64
from torch import Tensor

_ROUNDING = 1e-9
"""Taken off before a number is rounded up: (1 + 19) * (1 - .05) is 19 and no more."""


def rows_needed(alpha: float) -> int:
    r"""The least number of calibration rows with a finite bound at level ``alpha``: :math:`\lceil 1/\alpha \rceil - 1`.

    Raises:
        ValueError: if ``alpha`` is not between 0 and 1.

    >>> rows_needed(0.1), rows_needed(0.05)
    (9, 19)
    """
    _check_level("alpha", alpha)
    return max(1, ceil(1 / alpha - _ROUNDING) - 1)


def accepted_rows_needed(alpha: float, delta: float) -> int:
    r"""The least number of rows which, if none misses, tells that less than ``alpha`` miss: :math:`(1-\alpha)^n \le \delta`.

    >>> accepted_rows_needed(0.1, 0.1)
    22
    """
    _check_level("alpha", alpha)
    _check_level("delta", delta)
    return ceil(log(delta) / log1p(-alpha) - _ROUNDING)


def conformal_quantile(scores: Float[Tensor, "*batch n"], alpha: float) -> Float[Tensor, "*batch"]:
    r"""What a new row's score stays below with probability at least ``1 - alpha``.

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
    place = ceil((count + 1) * (1 - alpha) - _ROUNDING)
    if place > count:
        return scores.new_full(scores.shape[:-1], torch.inf)
    return scores.nan_to_num(torch.inf, torch.inf).sort(-1).values[..., place - 1]


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


def exceedance_tail(exceeding: int, new: int, rows: int, place: int) -> float:
    r"""The probability that at least ``exceeding`` of ``new`` rows are above the ``place``-th smallest of ``rows`` others.

    .. math:: P(K \ge k), \quad K \sim \mathrm{BetaBinomial}(\text{new}, n - r + 1, r)

    which is the distribution of K where all rows are exchangeable and no scores tie.

    >>> round(exceedance_tail(1, new=1, rows=19, place=19), 6)
    0.05
    """
    k = torch.arange(exceeding, new + 1, dtype=torch.float64)
    first, second = torch.tensor(rows - place + 1.0).double(), torch.tensor(float(place)).double()
    total = torch.tensor(float(new)).double()
    ways = torch.lgamma(total + 1) - torch.lgamma(k + 1) - torch.lgamma(total - k + 1)
    terms = ways + _log_beta(k + first, total - k + second) - _log_beta(first, second)
    return min(1.0, float(terms.logsumexp(0).exp())) if len(k) else 0.0


def stopping_levels(sizes: Float[Tensor, "n L"], scale: Tensor | float, tolerance: float) -> Int64[Tensor, "*scales n"]:
    """The first level at which each row's bound, ``scale`` times its size, is within the tolerance.

    Args:
        sizes: ``(n, L)``, bounds in units of the scale, at each level of effort; NaN is never within.
        scale: ``()``, or ``(K, 1, 1)`` for K of them at once.

    Returns:
        ``(n,)`` or ``(K, n)`` int64, L where no bound is.

    >>> stopping_levels(torch.tensor([[3.0, 1.0], [3.0, 2.0]]), 1.0, tolerance=1.5)
    tensor([1, 2])
    """
    within = scale * sizes <= tolerance
    return torch.where(within.any(-1), within.to(torch.uint8).argmax(-1), sizes.shape[-1])


def accepted_misses(
    ratios: Float[Tensor, "n L"], sizes: Float[Tensor, "n L"], scales: Float[Tensor, " K"], tolerance: float
) -> tuple[Int64[Tensor, " K"], Int64[Tensor, " K"]]:
    """How many rows are accepted at each scale, and how many of these have an error beyond their bound.

    Args:
        ratios: ``(n, L)``, errors over difficulties: what the scale would have to be.
        sizes: ``(n, L)``, bounds in units of the scale.
        scales: ``(K,)``.
        tolerance: a row is accepted at the first level whose bound is within it.

    Returns:
        ``(K,)`` and ``(K,)`` int64: misses and accepted rows.
    """
    levels = stopping_levels(sizes, scales[:, None, None], tolerance)
    accepted = levels < sizes.shape[-1]
    ends = levels.clamp(max=sizes.shape[-1] - 1)
    met = ratios.expand(len(scales), -1, -1).gather(2, ends.unsqueeze(-1)).squeeze(-1)
    missed = accepted & ~(met <= scales.unsqueeze(-1))
    return missed.sum(-1), accepted.sum(-1)


def accepted_scale(
    ratios: Float[Tensor, "n L"],
    sizes: Float[Tensor, "n L"],
    scales: Float[Tensor, " K"],
    tolerance: float,
    alpha: float,
    delta: float,
) -> Float[Tensor, ""]:
    r"""The smallest scale of bounds with which, of the rows accepted under a tolerance, at most a share ``alpha`` misses.

    Learn-then-test: the hypothesis that a scale's accepted rows miss more often is tested by its binomial p-value, one scale
    after the other, until the first that is not rejected at level ``delta`` (fixed-sequence testing). So with probability
    at least ``1 - delta`` over the calibration rows

    .. math:: P(\text{error} > \text{bound} \mid \text{accepted}) \le \alpha

    for the scale returned. The order of the ``scales`` must not depend on these rows.

    Args:
        ratios, sizes, scales, tolerance: as for :func:`accepted_misses`.
        alpha, delta: between 0 and 1.

    Returns:
        ``()``; infinite, so that no row is accepted, if the first scale is not rejected.
    """
    _check_level("delta", delta)
    misses, accepted = accepted_misses(ratios, sizes, scales, tolerance)
    passed = (binomial_tail(misses, accepted, alpha) <= delta).cumprod(0).bool()
    return torch.where(passed, scales, torch.inf).amin() if len(scales) else sizes.new_full((), torch.inf)


def ordered_scales(
    ratios: Float[Tensor, "n L"],
    sizes: Float[Tensor, "n L"],
    scales: Float[Tensor, " K"],
    tolerance: float,
    alpha: float,
    rows: int,
) -> Float[Tensor, " C"]:
    """Scales ``(C,)`` in the order in which :func:`accepted_scale` should test them on ``rows`` rows, judged by others.

    The first is that of the smallest p-value, reckoning with one miss more than was seen; all smaller ones follow.
    Larger scales, which accept fewer rows, are of no use. Arguments are as for :func:`accepted_scale`, of rows that are not
    used for the test.
    """
    misses, accepted = accepted_misses(ratios, sizes, scales, tolerance)
    factor = rows / max(1, len(sizes))
    expected = ((misses + (accepted > 0)) * factor).ceil().long()
    promised = binomial_tail(expected, (accepted * factor).floor().long(), alpha)
    first = scales[promised == promised.amin()].amin() if len(scales) else scales
    return scales[scales <= first].sort(descending=True).values


def _log_beta(a: Float[Tensor, "*a"], b: Float[Tensor, "*b"]) -> Float[Tensor, "*c"]:
    return torch.lgamma(a) + torch.lgamma(b) - torch.lgamma(a + b)


def _check_level(name: str, value: float) -> None:
    if not 0 < value < 1:
        raise ValueError(
            f"{name} must be between 0 and 1, got {value}: pass the share of misses that you accept, such as 0.1."
        )
