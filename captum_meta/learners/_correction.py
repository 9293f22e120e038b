r"""How much of a correction of the zero-shot answer is applied, judged on support rows that it was not fitted to.

A learner offers one or several corrections. For each of them it gives leave-one-out predictions: the correction of every
support row when it was fitted without this row. :func:`judge` chooses one, and returns how much of it is applied, how long
the correction of a row may be, and how fast corrections fade with the distance from the support rows.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import product

import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from captum_meta.learners._coordinates import SupportCoordinates
from captum_meta.types import Record

DECAYS = (0.3, 0.1)
"""Rates at which corrections fade with the distance, chosen on left-out rows."""
_FOLDS = 4
_CONFIDENCE = 1.0
_STEPS = 8
"""Steps of the grid of shares from 0 to 1."""
_EVEN = 0.1
"""Penalty of uneven shares, in units of the zero-shot error."""
_MOST = 1.5
"""Largest factor of retrieved residuals."""


@dataclass(frozen=True)
class Trust(Record):
    """Which correction is applied, and how much of it, chosen on left-out rows.

    Attributes:
        option: ``(*batch,)`` int64, index of the chosen correction.
        strength: ``(*batch,)``, from 0 to 1, how much of it is applied.
        reach: ``(*batch,)``, length of the longest correction that was applied to a left-out row.
        decay: ``(*batch,)``, rate at which corrections fade with the distance; None where no coordinates were given.
    """

    option: Tensor
    strength: Tensor
    reach: Tensor
    decay: Tensor | None = None

    def of(self, options: Tensor) -> Tensor:
        """The chosen one of ``(S, *batch, ...)`` options times its strength, ``(*batch, ...)``."""
        tail = (1,) * (options.dim() - 1 - self.option.dim())
        index = self.option.reshape(1, *self.option.shape, *tail).expand_as(options[:1])
        return options.gather(0, index)[0] * self.strength.reshape(*self.strength.shape, *tail)

    def within_reach(self, corrections: Float[Tensor, "*batch N M"]) -> Float[Tensor, "*batch N M"]:
        """Rows' corrections ``(*batch, N, M)``, none longer than the reach."""
        return within(corrections, self.reach)


def folds(keys: Num[Tensor, "*batch K"], most: int = _FOLDS) -> Bool[Tensor, "*batch F K"]:
    """Parts of the rows that are left out together, ``(*batch, F, K)`` bool; every row is in one of at most ``most``.

    Args:
        keys: ``(*batch, K)``, numbers whose order assigns the rows to parts, so that the rows' own order does not matter.
    """
    count = min(most, keys.shape[-1])
    dealt = keys.argsort(-1).argsort(-1) % count
    return dealt.unsqueeze(-2) == torch.arange(count, device=keys.device).unsqueeze(-1)


def judge(
    corrections: Float[Tensor, "S *batch K M"],
    residual: Float[Tensor, "*batch K M"],
    confidence: float = _CONFIDENCE,
    spread: Tensor | None = None,
    support: SupportCoordinates | None = None,
) -> tuple[Trust, Tensor]:
    r"""The correction d, and the share s of it, that lower the squared residual r of left-out rows most.

    .. math:: \sum_n |r_n|^2 - |r_n - s d_n|^2 = \sum_n 2 s \, r_n \cdot d_n - s^2 |d_n|^2

    is largest for :math:`s = \sum_n r_n \cdot d_n / \sum_n |d_n|^2`. In place of the numerator its lower confidence bound is
    taken: ``confidence`` standard errors below it. Noise of the labels does not bias it, for d has not seen these rows.

    Args:
        corrections: ``(S, *batch, K, M)``, options, each fitted without the row that it is for.
        residual: ``(*batch, K, M)``.
        confidence: multiplier of the standard error.
        spread: ``(*batch, K, M)``, shares by which a correction's sum is subtracted again.
        support: the rows' coordinates, if corrections are to fade with the distance.

    Returns:
        The choice, and the applied corrections of the left-out rows, ``(*batch, K, M)``.
    """
    n_options = len(corrections)
    if support is not None:
        beyond = support.isolation().unsqueeze(-1).to(corrections)
        corrections = torch.cat([corrections * torch.exp(-decay * beyond) for decay in DECAYS])
    if spread is not None:
        corrections = corrections - spread * corrections.sum(-1, keepdim=True)
    option, strength = _best(corrections, residual, confidence)
    applied = Trust(option, strength, strength).of(corrections)
    decay = None
    if support is not None:
        decay = torch.tensor(DECAYS, dtype=residual.dtype, device=residual.device)[option // n_options]
    return Trust(option % n_options, strength, applied.norm(dim=-1).amax(-1), decay), applied


def _best(
    corrections: Float[Tensor, "S *batch K M"], residual: Float[Tensor, "*batch K M"], confidence: float
) -> tuple[Tensor, Tensor]:
    """Option and strength, ``(*batch,)`` both."""
    agreement = (corrections * residual).sum(-1)
    size = corrections.square().sum((-2, -1))
    n_rows = residual.shape[-2]
    if n_rows < 2:
        return size.new_zeros(size.shape[1:], dtype=torch.long), size.new_zeros(size.shape[1:])
    sure = agreement.sum(-1) - confidence * agreement.std(-1) * n_rows**0.5
    finite = size.isfinite() & sure.isfinite() & (size > 0)
    strength = torch.where(finite, sure / torch.where(finite, size, 1.0), 0.0).clamp(0, 1)
    gain = torch.where(finite, strength * (2 * sure - strength * size), 0.0)
    best = gain.argmax(0)
    return best, strength.gather(0, best.unsqueeze(0))[0]


def factor(corrections: Float[Tensor, "*batch K M"], residual: Float[Tensor, "*batch K M"]) -> Float[Tensor, "*batch"]:
    """Least-squares factor of left-out rows' corrections ``(*batch, K, M)``, shrunk, ``(*batch,)``; from 0 to 1.5.

    By this factor the errors of other rows are carried over to a row; it may exceed 1.
    """
    agreement, size = (corrections * residual).sum((-2, -1)), corrections.square().sum((-2, -1))
    shrunk = size * (1 + 2 / residual.shape[-2])
    return (agreement / shrunk.clamp(min=torch.finfo(size.dtype).tiny)).clamp(0, _MOST)


def shares(
    answers: Float[Tensor, "*batch K M 3"], truth: Float[Tensor, "*batch K M"], start: Float[Tensor, 3], confidence: float
) -> Float[Tensor, "*batch 3"]:
    """Shares ``(*batch, 3)`` of three answers ``(*batch, K, M, 3)`` whose mixture has the smallest error on left-out rows.

    Their gain over the first answer alone counts by its lower confidence bound, ``confidence`` standard errors below it.
    Uneven shares are penalised a little.
    """
    grid = _simplex().to(answers)
    errors = ((answers @ grid.mT) - truth.unsqueeze(-1)).square().sum(-2)
    gains = errors[..., :1] - errors
    sure = gains.sum(-2) - confidence * gains.std(-2) * gains.shape[-2] ** 0.5
    zero_shot = (start - truth).square().sum((-2, -1))
    pull = _EVEN * zero_shot.unsqueeze(-1) * (grid - 1 / grid.shape[-1]).square().sum(-1)
    return grid[(sure - pull).nan_to_num(-torch.inf, -torch.inf).argmax(-1)]


@lru_cache(maxsize=1)
def _simplex() -> Float[Tensor, "A 3"]:
    """Triples of multiples of 1/8 that sum to 1, ``(45, 3)``; the first is (1, 0, 0)."""
    with torch.inference_mode(False):
        triples = [t for t in product(range(_STEPS, -1, -1), repeat=3) if sum(t) == _STEPS]
        return torch.tensor(triples, dtype=torch.float64) / _STEPS


def within(corrections: Float[Tensor, "*batch N M"], reach: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch N M"]:
    """Rows' corrections ``(*batch, N, M)``, none longer than ``reach`` ``(*batch,)``; the gradient is finite at 0 too."""
    size, reach = corrections.norm(dim=-1), reach.unsqueeze(-1)
    far = size > reach
    return corrections * torch.where(far, reach / torch.where(far, size, 1.0), 1.0).unsqueeze(-1)
