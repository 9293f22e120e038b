"""How far to trust a correction, judged on support rows that it was not fitted to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

_FOLDS = 4
_CAUTION = 1.0


@dataclass(frozen=True)
class Choice:
    """One of several corrections for each task, and how much of it.

    Attributes:
        option: ``(T,)`` int64.
        strength: ``(T,)``, from 0 to 1.
    """

    option: Tensor
    strength: Tensor


def folds(keys: Tensor, most: int = _FOLDS) -> Tensor:
    """Parts of the rows that are left out together, ``(*batch, F, K)`` bool; every row is in one of at most ``most``.

    Args:
        keys: ``(*batch, K)``, numbers by whose order the rows are dealt out, so that the rows' own order does not matter.
    """
    count = min(most, keys.shape[-1])
    dealt = keys.argsort(-1).argsort(-1) % count
    return dealt.unsqueeze(-2) == torch.arange(count, device=keys.device).unsqueeze(-1)


def choose(corrections: Tensor, residual: Tensor, caution: float = _CAUTION) -> Choice:
    r"""The correction d and the share s of it that surely leave least of the residual r.

    .. math:: \sum_n |r_n|^2 - |r_n - s d_n|^2 = \sum_n 2 s \, r_n \cdot d_n - s^2 |d_n|^2

    is largest for :math:`s = \sum_n r_n \cdot d_n / \sum_n |d_n|^2`. From the numerator its standard error is taken off,
    ``caution`` times. Labels' noise does not bias it, for d has not seen these rows.

    Args:
        corrections: ``(S, T, K, M)``, options, each fitted without the row that it is for.
        residual: ``(T, K, M)``.
        caution: in standard errors.
    """
    agreement = (corrections * residual).sum(-1)
    size = corrections.square().sum((-2, -1))
    n_rows = residual.shape[-2]
    if n_rows < 2:
        return Choice(size.new_zeros(size.shape[1:], dtype=torch.long), size.new_zeros(size.shape[1:]))
    sure = agreement.sum(-1) - caution * agreement.std(-1) * n_rows**0.5
    finite = size.isfinite() & sure.isfinite() & (size > 0)
    strength = torch.where(finite, sure / torch.where(finite, size, 1.0), 0.0).clamp(0, 1)
    gain = torch.where(finite, strength * (2 * sure - strength * size), 0.0)
    best = gain.argmax(0)
    return Choice(best, strength.gather(0, best.unsqueeze(0))[0])


def picked(options: Tensor, choice: Choice) -> Tensor:
    """Of ``(S, T, ...)`` each task's chosen option, as much of it as the choice says, ``(T, ...)``."""
    tail = (1,) * (options.dim() - 1 - choice.option.dim())
    index = choice.option.reshape(1, *choice.option.shape, *tail).expand_as(options[:1])
    return options.gather(0, index)[0] * choice.strength.reshape(*choice.strength.shape, *tail)


def within(corrections: Tensor, reach: Tensor) -> Tensor:
    """Rows' corrections ``(*batch, N, M)``, none longer than ``reach`` ``(*batch,)``; the gradient is finite at 0 too."""
    size, reach = corrections.norm(dim=-1), reach.unsqueeze(-1)
    far = size > reach
    return corrections * torch.where(far, reach / torch.where(far, size, 1.0), 1.0).unsqueeze(-1)
