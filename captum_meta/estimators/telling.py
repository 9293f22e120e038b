r"""Observations of a Gaussian process that tell most about some quantities, chosen one after another.

An observation c reduces the summed variance of the quantities, when those chosen so far are known, by

.. math:: |C_c|^2 / K_{cc}

with K its variance, and C its covariance with the quantities, both given what is known. No value enters, so the choice can
be made before any is seen (A-optimal design but for the greed: Fedorov 1972; Krause, Singh and Guestrin 2008).

Steps are few products of matrices: the candidates are dealt into parts, each of which is conditioned on the last choices at
once and then chosen from, in turn (stochastic greedy: Mirzasoleiman et al. 2015).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Generator, Tensor

from captum_meta._numbers import TINY
from captum_meta.estimators.conditioning import cholesky_factor

_LEAST_VARIANCE = 1e-9
_TIES = 1e-4


@dataclass
class Beliefs:
    """Covariances of ``P`` candidates, given what is known; all float64.

    Attributes:
        among: of candidates with each other.
        with_quantities: of candidates with what is asked.
    """

    among: Float[Tensor, "R P P"]
    with_quantities: Float[Tensor, "R P Q"]

    def given(self, seen: Float[Tensor, "R S S"], cross: Float[Tensor, "R S P"], of_seen: Float[Tensor, "R S Q"]) -> Beliefs:
        """The same, given observations.

        Args:
            seen: covariance of these.
            cross, of_seen: their covariance with the candidates, and with what is asked.
        """
        both = torch.cat([cross, of_seen], dim=2)
        rows, values = torch.linalg.solve_triangular(cholesky_factor(seen), both, upper=False).split(
            [cross.shape[2], of_seen.shape[2]], dim=2
        )
        return Beliefs(self.among - rows.mT @ rows, self.with_quantities - rows.mT @ values)


@dataclass
class _Part:
    """The candidates from ``first`` on, given the first ``count`` that were chosen."""

    first: int
    factor: Float[Tensor, "R S P"]  # their covariance with the chosen, times the inverse of the Cholesky factor of these
    values: Float[Tensor, "R Q P"]  # what is left of their covariance with the quantities
    variance: Float[Tensor, "R P"]  # what is left
    favour: Float[Tensor, " P"]
    free: Bool[Tensor, "R P"]
    count: int = 0

    def take(self, least: Float[Tensor, "R 1"], together: int) -> Int64[Tensor, " R"]:
        """Of the most informative free one, among those whose variance exceeds ``least`` if there are any.

        So many rows ``together`` take the same one.
        """
        gain = self.values.square().sum(1) / self.variance.clamp(min=least) * self.favour
        gain = torch.where(self.variance > least, gain, self.variance - 1)
        if together > 1:
            shares = (gain / gain.amax(1, keepdim=True).clamp(min=TINY)).unflatten(0, (-1, together)).mean(1)
            gain = shares.repeat_interleave(together, 0)
        best = torch.where(self.free, gain, -torch.inf).argmax(1)
        self.free[torch.arange(len(best), device=best.device), best] = False
        return best


@dataclass
class _Chosen:
    """The first ``count`` choices."""

    rows: Float[Tensor, "R S P"]  # covariance with all candidates
    factor: Float[Tensor, "R S S"]  # Cholesky factor L
    values: Float[Tensor, "R S Q"]  # L^-1 times their covariance with the quantities
    count: int = 0

    def known_to(self, part: _Part) -> None:
        """Condition candidates on what was chosen since they were last."""
        old, new = slice(part.count), slice(part.count, self.count)
        if part.count == self.count:
            return
        right = self.rows[:, new, part.first : part.first + part.variance.shape[1]]
        right = torch.baddbmm(right, self.factor[:, new, old], part.factor[:, old], alpha=-1)
        last = self.factor[:, new, new]
        alone = self.count == part.count + 1
        rows = right / last if alone else torch.linalg.solve_triangular(last, right, upper=False)
        part.factor[:, new] = rows
        part.values.baddbmm_(self.values[:, new].mT, rows, alpha=-1)
        part.variance = (part.variance - rows.square().sum(1)).clamp(min=0)
        part.count = self.count


def favours(count: int, generator: Generator) -> Float[Tensor, " P"]:
    """Random factors so close to 1 that they decide between equal candidates alone, on every machine alike."""
    return 1 + _TIES * torch.rand(count, generator=generator, dtype=torch.float64)


def in_steps(numbers: Tensor) -> Tensor:
    """Rounded to quarters: the same on every machine, and in every batch, which rounding of f makes a little different."""
    return (4 * numbers).round() / 4


@torch.no_grad()
def most_telling(
    beliefs: Beliefs,
    free: Bool[Tensor, "R P"],
    favour: Float[Tensor, " P"],
    count: int,
    n_parts: int = 1,
    together: int = 1,
) -> Int64[Tensor, "R count"]:
    """Indices of the ``count`` candidates to observe next; a shorter list is the beginning of a longer one.

    Args:
        beliefs: about the candidates.
        free: which of these may be chosen.
        favour: of equal candidates the one with the larger number is taken (:func:`favours`).
        count: at most as many as are free in each row.
        n_parts: choices are made from so many parts of the candidates in turn.
        together: so many rows side by side make the same observations.
    """
    variance, values = beliefs.among.diagonal(dim1=1, dim2=2), beliefs.with_quantities
    n_rows, n_candidates, n_quantities = values.shape
    least = _LEAST_VARIANCE * variance.amax(1, keepdim=True)
    of_candidates, factor, of_quantities = (
        values.new_zeros(n_rows, count, size) for size in (n_candidates, count, n_quantities)
    )
    chosen = _Chosen(of_candidates, factor, of_quantities)
    parts = []
    for some in torch.arange(n_candidates).tensor_split(n_parts):
        of_part = slice(int(some[0]), int(some[-1]) + 1)
        known = values.new_zeros(n_rows, count, len(some))
        left = values[:, of_part].mT.contiguous()
        parts.append(_Part(of_part.start, known, left, variance[:, of_part], favour[of_part], free[:, of_part].clone()))
    rows, found = torch.arange(n_rows, device=values.device), []
    for turn in range(count):
        part = parts[turn % n_parts]
        chosen.known_to(part)
        best = part.take(least, together)
        deviation = part.variance[rows, best].unsqueeze(1).clamp(min=least).sqrt()
        found.append(best + part.first)
        chosen.rows[:, turn] = beliefs.among[rows, found[-1]]
        chosen.factor[:, turn, :turn] = part.factor[rows, :turn, best]
        chosen.factor[:, turn, turn] = deviation.squeeze(1)
        chosen.values[:, turn] = part.values[rows, :, best] / deviation
        chosen.count += 1
    return torch.stack(found, dim=1)
