"""Rows whose Integrated Gradients cannot be completed to the change of f: they get what Captum gives, and a warning."""

from __future__ import annotations

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._warnings import warn
from captum_meta.evidence import Game, path_slopes

_NAMED = 10
"""Rows that a warning names."""
INCONSISTENT = (
    "Gradients of the rows {} do not explain how forward_func changes: parts of it may be detached or rounded, with "
    "gradients of their own (straight-through estimators), or its changes are as small as its rounding. As in Captum these "
    "rows get the integral of the gradients, whose sum is not the change of forward_func (return_convergence_delta=True "
    "tells by how much). MetaKernelShap and MetaShapleyValueSampling need no gradients."
)
UNKNOWN = (
    "forward_func is not finite at the inputs or baselines of the rows {}. As in Captum these rows get the integral of the "
    "gradients between them, which nothing completes: pass baselines= at which forward_func is finite."
)
UNEXPLAINED = (
    "forward_func is not finite at the rows {}, or at one of their background rows: they are not explained. Leave out the "
    "background rows at which it is not finite."
)


def captums_values(game: Game, n_steps: int, method: str, multiply: bool) -> Tensor:
    """Captum's own quadrature, ``(N, M)``."""
    points, weights = (
        torch.tensor(part(n_steps), dtype=torch.float64) for part in _captum.approximation_parameters(method)[::-1]
    )
    average = path_slopes(game, points.clamp(1e-6, 1 - 1e-6))[0]
    average = average @ weights.to(average)
    return average * game.difference if multiply else average


def with_captums(
    values: Tensor, error: Tensor, inconsistent: Tensor, total: Tensor, game: Game, n_steps: int, method: str, multiply: bool
) -> tuple[Tensor, Tensor]:
    """Attributions ``(N, M)`` and estimates ``(N,)``, with Captum's own for rows of which nobody knows whose the gap is.

    These are rows whose gradients are not those of f, and rows at whose ends f is not finite.
    """
    unknown = ~total.isfinite()
    known_apart = game.difference.isfinite().all(1)
    inconsistent, unknown = inconsistent & known_apart & ~unknown, unknown & known_apart
    rows = (inconsistent | unknown).nonzero().flatten()
    if len(rows) == 0:
        return values, error
    warn_of_rows(inconsistent, INCONSISTENT)
    warn_of_rows(unknown, UNKNOWN)
    values, error = values.clone(), error.clone()
    values[rows] = captums_values(game.take(rows), n_steps, method, multiply).to(values)
    error[rows] = torch.nan
    return values, error


def warn_of_rows(which: Tensor, message: str) -> None:
    """Warn of the rows ``which (N,)``, if there are any, with their numbers in the message."""
    rows = which.nonzero().flatten().tolist()
    if rows:
        named = ", ".join(map(str, rows[:_NAMED])) + (" and others" if len(rows) > _NAMED else "")
        warn(message.format(named))
