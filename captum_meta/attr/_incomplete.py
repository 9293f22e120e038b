"""Rows whose Integrated Gradients cannot be completed to the change of f: they get Captum's answer, and a warning."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._warnings import warn
from captum_meta.estimators import FINE
from captum_meta.evidence import Game, path_gradients
from captum_meta.evidence.consistency import wrong_rows

BEGINNING = 1e-6
"""The first point of a path at which players that are missing at its other end are missing."""
_NAMED = 10
"""Most rows that a warning names."""
INCONSISTENT = (
    "Gradients of the rows {} do not explain how forward_func changes: parts of it may be detached or rounded, with "
    "gradients of their own (straight-through estimators), it may jump, as at a hard gate, or its changes are as small as "
    "its rounding. As in Captum these "
    "rows get the integral of the gradients, whose sum is not the change of forward_func (return_convergence_delta=True "
    "tells by how much). MetaKernelShap and MetaShapleyValueSampling need no gradients."
)
UNKNOWN = (
    "forward_func is not finite at the inputs or baselines of the rows {}. As in Captum these rows get the integral of the "
    "gradients between them, which nothing completes: pass baselines= at which forward_func is finite."
)
MISSING = (
    "Several players are missing or infinite at one end of the paths of the rows {}: how forward_func changes where they "
    "appear is shared evenly among them, as no gradient tells them apart. MetaKernelShap and MetaShapleyValueSampling do."
)
UNEXPLAINED = (
    "forward_func is not finite at the rows {}, or at one of their background rows: they are not explained. Leave out the "
    "background rows at which it is not finite."
)


@dataclass(frozen=True)
class CaptumQuadrature:
    """Captum's own quadrature.

    Attributes:
        n_steps, method: of Captum's ``attribute``.
        multiply: False for average gradients instead of their products with (input - baseline).
    """

    n_steps: int
    method: str
    multiply: bool

    def values(self, game: Game) -> Tensor:
        """Attributions ``(N, M)``."""
        points, weights = (
            torch.tensor(part(self.n_steps), dtype=torch.float64)
            for part in _captum.approximation_parameters(self.method)[::-1]
        )
        average = path_gradients(game, points.clamp(BEGINNING, 1 - BEGINNING))[0]
        average = average @ weights.to(average)
        return average * game.difference if self.multiply else average

    def in_rows(self, rows: Tensor, values: Tensor, game: Game) -> Tensor:
        """The attributions ``values (N, M)``, replaced by Captum's in ``rows (R,)``."""
        return values.index_copy(0, rows, self.values(game.take(rows)).to(values)) if len(rows) else values


def unexplained_rows(game: Game, points: Tensor, sums: Tensor, curve: Tensor, total: Tensor, effects: Tensor) -> Tensor:
    """Rows whose gradients do not explain how f changes, ``(N,)``; none where f is in half precision, as its rounding would.

    Args:
        game, points, sums, curve, total: as of :func:`~captum_meta.evidence.consistency.inconsistent_rows`.
        effects: ``(N, E)``, of :func:`is_flat`.
    """
    if torch.finfo(total.dtype).eps >= FINE:
        return torch.zeros_like(total, dtype=torch.bool)
    return wrong_rows(game, points, sums, curve, total) | is_flat(effects, total)


def incompletable_rows(game: Game, total: Tensor, inconsistent: Tensor | None = None) -> Tensor:
    """Indices ``(R,)`` of rows whose gap to the change of f belongs to no player in particular, with a warning.

    Args:
        total: the change of f, ``(N,)``; not finite where f is not finite at one of the ends.
        inconsistent: whether a row's gradients are not those of f, ``(N,)``; None: of no row.
    """
    unknown = ~total.isfinite()
    inconsistent = torch.zeros_like(unknown) if inconsistent is None else inconsistent & ~unknown
    rows = inconsistent | unknown
    if not game.finite:
        finite = game.difference.isfinite()
        warn_of_rows(((~finite).sum(1) > 1) & (total != 0) & ~unknown, MISSING)
        known_apart = finite.all(1)
        inconsistent, rows = inconsistent & known_apart, rows & known_apart
    warn_of_rows(inconsistent, INCONSISTENT)
    warn_of_rows(unknown, UNKNOWN)
    return rows.nonzero().flatten()


def is_flat(effects: Tensor, total: Tensor) -> Tensor:
    """Whether all effects ``(N, E)`` of a row are 0 though f changes by ``total (N,)``, as behind steps; ``(N,)`` bool."""
    return (effects == 0).all(1) & (total != 0)


def warn_of_rows(which: Tensor, message: str) -> None:
    """Warn of the rows ``which (N,)``, if any, with their indices in the message."""
    rows = which.nonzero().flatten().tolist()
    if rows:
        named = ", ".join(map(str, rows[:_NAMED])) + (" and others" if len(rows) > _NAMED else "")
        warn(message.format(named))
