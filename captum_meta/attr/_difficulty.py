"""How difficult a row is: a score that ranks rows by their errors, learned from rows whose errors are known."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_meta._numbers import TINY

MOST_PLAYERS = 64
"""With more players the forest reads the signals alone."""
LEAST_ROWS = 20
"""Fewest rows from which a forest is fitted."""
_TREES, _LEAF, _TRIED = 100, 3, 0.3
_WEIGHT = 2.0
"""Weight of the forest; chosen, like its parameters, on models of the synthetic family (docs/research-log.md)."""
_FINEST = 16.0
"""Errors below e^-16 of the attributions' length, the rounding of single precision, count as this."""
_NOTHING = -69.0
"""The logarithm that stands for zero, of about 1e-30."""
_NEIGHBOURS = 3


@dataclass(frozen=True)
class Difficulty:
    """A score for each row, in units of the output: a weighted geometric mean of a first guess and a forest's prediction.

    The guess is the first of the signals, scaled to the rows with known errors. The forest
    (extremely randomised trees: Geurts, Ernst and Wehenkel, Machine Learning 2006) reads all signals, the attributions in
    units of their length and the inputs. Errors are later divided by the score and calibrated, so only its ranking matters.

    Attributes:
        shift: added to the logarithm of the guess.
        typical: logarithm of the length of a typical row's attributions.
        forest: None where too few errors are known.
    """

    shift: float
    typical: float
    forest: Any = None

    @classmethod
    def fitted(cls, signals: Tensor, features: Tensor, errors: Tensor) -> tuple[Difficulty, Tensor]:
        """Fit to rows with errors ``(n,)``; also returns their own scores, from trees that were not fitted to them."""
        known = errors.isfinite()
        typical = _typical(signals[known])
        guess, wanted = _guess(signals, typical), _log_errors(errors, signals)
        shift = float((wanted - guess)[known].median()) if bool(known.any()) else 0.0
        if int(known.sum()) < LEAST_ROWS:
            return cls(shift, typical), (guess + shift).exp()
        from sklearn.ensemble import ExtraTreesRegressor

        forest = ExtraTreesRegressor(
            _TREES, min_samples_leaf=_LEAF, max_features=_TRIED, bootstrap=True, oob_score=True, random_state=0
        )
        forest.fit(_table(signals[known], features[known]), wanted[known].cpu().numpy())
        unseen = (guess + shift).index_copy(0, known.nonzero().flatten(), torch.as_tensor(forest.oob_prediction_).to(guess))
        return cls(shift, typical, forest), _mean(guess + shift, unseen)

    def scores(self, signals: Tensor, features: Tensor) -> Tensor:
        """``(R,)``, positive, from signals ``(R, S)`` and features ``(R, F)``."""
        guess = _guess(signals, self.typical) + self.shift
        if self.forest is None or not len(guess):
            return guess.exp()
        return _mean(guess, torch.as_tensor(self.forest.predict(_table(signals, features))).to(guess))


@dataclass(frozen=True)
class Likeness:
    """Mean distance of rows to their nearest neighbours among given ones, each feature in units of its spread.

    Attributes:
        middle, spread: ``(F,)``.
        rows: ``(n, F)``, in these units.
    """

    middle: Tensor
    spread: Tensor
    rows: Tensor

    @classmethod
    def to(cls, features: Tensor) -> Likeness:
        """To rows ``(n, F)``."""
        features = _finite(features)
        middle, spread = features.mean(0), features.std(0, correction=0)
        spread = torch.where(spread > 0, spread, 1.0)
        return cls(middle, spread, (features - middle) / spread)

    def distances(self, features: Tensor) -> Tensor:
        """``(R,)``."""
        apart = torch.cdist((_finite(features) - self.middle) / self.spread, self.rows)
        return apart.topk(min(_NEIGHBOURS, len(self.rows)), largest=False).values.mean(1)


def features_of(values: Tensor, inputs: Tensor) -> Tensor:
    """Features ``(R, F)``: players' inputs ``(R, P)``, and attributions ``(R, M)`` in units of their length."""
    units = values / values.norm(dim=1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
    kept = [part for part in (units, inputs) if part.shape[1] <= MOST_PLAYERS]
    return torch.cat(kept, dim=1) if kept else values.new_zeros(len(values), 0)


def _mean(guess: Tensor, expected: Tensor) -> Tensor:
    return ((guess + _WEIGHT * expected) / (1 + _WEIGHT)).exp()


def _typical(signals: Tensor) -> float:
    sizes = signals[:, 1][signals[:, 1].isfinite()]
    return float(sizes.median()) if len(sizes) else _NOTHING


def _guess(signals: Tensor, typical: float) -> Tensor:
    """The first signal, at least the rounding error; a typical row's length where it is unknown."""
    first, size = signals[:, 0], signals[:, 1]
    guess = torch.where(first.isfinite(), first, typical)
    guess = torch.where(size > _NOTHING, guess, typical)
    return torch.maximum(guess, torch.where(size > _NOTHING, size, typical) - _FINEST)


def _log_errors(errors: Tensor, signals: Tensor) -> Tensor:
    """Logarithms, with rounding errors as the least."""
    least = (signals[:, 1].nan_to_num(_NOTHING) - _FINEST).exp()
    return torch.maximum(errors.nan_to_num(0.0), least).clamp(min=TINY).log()


def _table(signals: Tensor, features: Tensor) -> Any:
    """The forest's inputs, as an array of NumPy."""
    return torch.cat([_finite(signals), _finite(features)], dim=1).cpu().numpy()


def _finite(numbers: Tensor) -> Tensor:
    return numbers.nan_to_num(0.0, 1e9, -1e9).clamp(-1e9, 1e9)
