"""Warnings that point at the caller's line, wherever in the package they come from."""

from __future__ import annotations

import sys
import warnings

_PACKAGES = ("captum_meta", "captum", "torch", "contextlib", "functools")


def warn(message: str) -> None:
    """Warn at the line outside this package, Captum, torch and decorators that led here; Python shows it once a line."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _is_ours(frame.f_globals.get("__name__", "")):
        frame, level = frame.f_back, level + 1
    warnings.warn(message, stacklevel=level)


def _is_ours(module: str) -> bool:
    return module.partition(".")[0] in _PACKAGES
