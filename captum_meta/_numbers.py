"""Checks of numerical arguments, and the least number that is divided by."""

from __future__ import annotations

from math import isfinite
from typing import TypeVar

TINY = 1e-30
"""Least denominator, and least argument of logarithms: its reciprocal is finite in single precision."""
_N = TypeVar("_N", int, float)


def positive(name: str, value: float) -> float:
    """The value of the argument ``name``.

    Raises:
        ValueError: unless it is finite and above 0.

    >>> positive("rate", 0.1)
    0.1
    """
    if not (isfinite(value) and value > 0):
        raise ValueError(f"{name}={value}: pass a number above 0.")
    return value


def share(name: str, value: float) -> float:
    """The value of the argument ``name``.

    Raises:
        ValueError: unless it lies between 0 and 1, neither included.
    """
    if not 0 < value < 1:
        raise ValueError(f"{name}={value}: pass a number between 0 and 1, neither of them included.")
    return value


def at_least(name: str, value: _N, least: _N) -> _N:
    """The value of the argument ``name``.

    Raises:
        ValueError: unless it is finite and not less than ``least``.
    """
    if not (isfinite(value) and value >= least):
        raise ValueError(f"{name}={value}: pass a number of at least {least}.")
    return value
