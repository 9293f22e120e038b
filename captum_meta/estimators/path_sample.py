"""Gradients at points of the paths of several rows, as many as each row needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from torch import Tensor

from captum_meta._model import without_autocast

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]
ROUNDING = 2
"""Units in the last place of f by which a change of it is rounded."""
_AT_ONCE = 2**16
_Numbers = TypeVar("_Numbers", Floats, Tensor)


def certain(changes: _Numbers, size: _Numbers, precision: float) -> _Numbers:
    """Changes of f drawn towards 0 by what f is rounded by, where it is as large as ``size``."""
    rounding = ROUNDING * precision * size
    return changes - changes.clip(-rounding, rounding)


@dataclass(frozen=True)
class PathSample:
    """P points on the paths of N rows: first all of row 0, ascending, then those of row 1.

    What there is one number of for each point is kept in NumPy, whose calls cost a fraction of torch's on few numbers.

    Attributes:
        rows: ``(P,)``.
        points: ``(P,)``, in (0, 1).
        values: ``(P,)``, f there.
        sums: ``(P,)``, sum of the effects there.
        places: ``(P,)``, which of the effects belong to the point.
        effects: ``(P, M)``, gradient times (input - baseline), in the order in which they were measured.
        ends: ``(N, 2)``, f at the baseline and at the input.
        precision: of f, as ``torch.finfo(dtype).eps``.
    """

    rows: Indices
    points: Floats
    values: Floats
    sums: Floats
    places: Indices
    effects: Float[Tensor, "P M"]
    ends: Floats
    precision: float = 0.0

    @classmethod
    def of(
        cls,
        rows: Indices,
        points: Floats,
        values: Float[Tensor, " P"],
        effects: Float[Tensor, "P M"],
        ends: Floats,
        precision: float = 0.0,
    ) -> PathSample:
        """A sample of points in order, with f there ``(P,)``, some of which may not be finite.

        What is not finite was not measured: effects are those of the nearest point that has them, else 0, and values of f
        lie between their neighbours.
        """
        sums = effects.sum(1)
        filled = effects
        if not bool(sums.isfinite().all()):
            filled = _filled(effects, rows, points)
            sums = filled.sum(1)
        heights = _between(_numbers(values), rows, points, ends)
        return cls(rows, points, heights, _numbers(sums), np.arange(len(rows)), filled, ends, precision)

    @property
    def counts(self) -> Indices:
        """``(N,)``, points of each row."""
        return np.bincount(self.rows, minlength=len(self.ends))

    def of_rows(self, chosen: NDArray[np.bool_]) -> PathSample:
        """The rows ``chosen`` ``(N,)``, counted anew."""
        kept = chosen[self.rows]
        rows, places = (np.cumsum(chosen) - 1)[self.rows[kept]], self.places[kept]
        effects = self.effects
        if not kept.all():
            effects = effects[torch.from_numpy(places).to(effects.device)]
            places = np.arange(len(places))
        numbers = (self.points[kept], self.values[kept], self.sums[kept])
        return PathSample(rows, *numbers, places, effects, self.ends[chosen], self.precision)

    def joined(self, other: PathSample) -> PathSample:
        """With further points of the same rows."""
        rows, points = np.concatenate([self.rows, other.rows]), np.concatenate([self.points, other.points])
        order = np.lexsort((points, rows))
        values, sums = (np.concatenate(pair)[order] for pair in ((self.values, other.values), (self.sums, other.sums)))
        places = np.concatenate([self.places, other.places + len(self.effects)])[order]
        effects = torch.cat([self.effects, other.effects])
        return PathSample(rows[order], points[order], values, sums, places, effects, self.ends, self.precision)

    def certain(self, changes: Floats, rows: Indices) -> Floats:
        """Changes of f ``(I,)``, on these rows, drawn towards 0 by what f is rounded by."""
        return certain(changes, np.abs(self.ends).max(1)[rows], self.precision)

    def added(self, weights: Floats) -> Float[Tensor, "N M"]:
        """Effects times weights ``(P,)``, added up for each row, ``(N, M)``."""
        return self._mixed(self.rows, self.places, weights, len(self.ends))

    def squares(self, weights: Floats) -> Floats:
        """Sums over the players of the squares of :meth:`added`, ``(N,)``."""
        return _squares(self.added(weights))

    def squared_jumps(self, first: Indices, second: Indices) -> Floats:
        """Squared distances of the effects at pairs of points, ``(I,)``; so many at once that they stay in the cache."""
        at_once = max(1, _AT_ONCE // max(1, self.effects.shape[1]))
        both = [torch.from_numpy(self.places[one]).to(self.effects.device).split(at_once) for one in (second, first)]
        parts = (self.effects.index_select(0, b).sub_(self.effects.index_select(0, a)) for b, a in zip(*both, strict=True))
        return np.concatenate([_squares(part) for part in parts])

    def _mixed(self, into: Indices, places: Indices, weights: Floats, count: int) -> Float[Tensor, "N M"]:
        index = torch.from_numpy(np.stack([into, places])).to(self.effects.device)
        numbers = torch.from_numpy(weights).to(self.effects)
        matrix = torch.sparse_coo_tensor(index, numbers, (count, len(self.effects)), check_invariants=False)
        with without_autocast(self.effects.device):
            return torch.sparse.mm(matrix, self.effects)


def _squares(values: Tensor) -> Floats:
    return _numbers(torch.linalg.vector_norm(values, dim=1)) ** 2


def _numbers(values: Tensor) -> Floats:
    numbers: Floats = values.detach().double().cpu().numpy()
    return numbers


def _filled(effects: Float[Tensor, "P M"], rows: Indices, points: Floats) -> Float[Tensor, "P M"]:
    finite = effects.isfinite()
    filled = torch.where(finite, effects, 0.0)
    for place in (~finite).any(1).nonzero().flatten().tolist():
        beside = np.flatnonzero(rows == rows[place])
        nearest = beside[np.argsort(np.abs(points[beside] - points[place]), kind="stable")].copy()
        known = finite[nearest]
        first = known.int().argmax(0)
        lent = filled[torch.from_numpy(nearest).to(effects.device)].gather(0, first.unsqueeze(0)).squeeze(0)
        filled[place] = torch.where(finite[place], filled[place], lent)
    return filled


def _between(values: Floats, rows: Indices, points: Floats, ends: Floats) -> Floats:
    known = np.isfinite(values)
    if known.all():
        return values
    values = values.copy()
    for row in np.unique(rows[~known]):
        here, lost = (rows == row) & known, (rows == row) & ~known
        places = np.concatenate([[0.0], points[here], [1.0]])
        values[lost] = np.interp(points[lost], places, np.concatenate([ends[row, :1], values[here], ends[row, 1:]]))
    return values
