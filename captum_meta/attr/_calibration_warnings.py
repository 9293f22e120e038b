"""Warnings of error estimates that fail on calibration rows, and of rows unlike these."""

from __future__ import annotations

from captum_meta._warnings import warn
from captum_meta.attr._calibration import Calibration
from captum_meta.attr._calls import Call
from captum_meta.attr._compared import Compared
from captum_meta.attr._runs import content_of
from captum_meta.estimators.conformal import binomial_tail

_CLAIMED, _SURE = 0.1, 0.05
"""One row in ten may exceed an estimate; a warning is given where significantly more do, at this level."""


def warn_of_wrong_estimates(rows: Compared) -> None:
    """Warn where more rows than one in ten exceed the method's own error estimate."""
    estimates, errors = rows.signals[:, 0, 0].exp(), rows.errors.distance[:, 0]
    known = estimates.isfinite() & errors.isfinite()
    beyond = (errors > estimates)[known].sum()
    if int(beyond) and float(1 - binomial_tail(beyond - 1, known.sum(), _CLAIMED)) <= _SURE:
        warn(
            f"The method's own error estimate, which nine in ten rows stay below, holds for {1 - beyond / known.sum():.0%} "
            "of the calibration rows: the model is unlike the synthetic models that it was made for. Trust the calibrated "
            "bounds, return_error_bound=True, in its place."
        )


def warn_of_unlike_rows(calibration: Calibration, call: Call) -> None:
    """Name rows that are further from the calibration rows than chance explains; refuse rows of other sizes and players."""
    content = content_of(call)
    known, given = calibration.rows.content.shape[1], content.shape[1]
    if known != given:
        raise ValueError(
            f"The rows have {given} numbers each and the calibration rows {known}: calibrate with rows of the same size."
        )
    if call.game.players.count != calibration.players:
        raise ValueError(
            f"The rows have {call.game.players.count} players and the calibration rows {calibration.players}: pass the "
            "feature_mask that calibrate() was given, or calibrate with this one."
        )
    unlike = calibration.unlike(content)
    if unlike:
        shown = ", ".join(map(str, unlike[:10])) + (", ..." if len(unlike) > 10 else "")
        warn(
            f"The rows {shown} are unlike the calibration rows, for which alone bounds are promised: calibrate with rows "
            "like those to be explained."
        )
