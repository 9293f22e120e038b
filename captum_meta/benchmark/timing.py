"""CPU seconds of calls that are compared: in turn, in one process, by their medians."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median
from time import process_time
from typing import Any

Call = Callable[[], Any]
_LEAST = 0.05
"""Seconds that are timed at least."""


@dataclass(frozen=True)
class Comparison:
    """Our call, and the call it is compared with.

    Attributes:
        most: the most that our seconds over theirs should be; in seconds where there is no other call.
        theirs: None where there is no other call.
    """

    name: str
    most: float
    ours: Call
    theirs: Call | None = None


@dataclass(frozen=True)
class Timing:
    """Medians of CPU seconds, and the median of the ratios of calls that ran one after the other.

    Attributes:
        theirs: NaN where there was no other call; ``ratio`` is then the seconds.
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    most: float


def timed(comparison: Comparison, runs: int) -> Timing:
    """Both calls in turn, ``runs`` times, after one of each that does not count."""
    theirs = {} if comparison.theirs is None else {"theirs": comparison.theirs}
    taken = in_turn({"ours": comparison.ours, **theirs}, runs)
    ours = median(taken["ours"])
    if not theirs:
        return Timing(comparison.name, ours, float("nan"), ours, comparison.most)
    ratio = median(one / other for one, other in zip(*taken.values(), strict=True))
    return Timing(comparison.name, ours, median(taken["theirs"]), ratio, comparison.most)


def in_turn(calls: Mapping[str, Call], runs: int) -> dict[str, list[float]]:
    """CPU seconds of each call, ``runs`` times, after one of each that does not count."""
    taken = [{name: seconds(call) for name, call in calls.items()} for _ in range(runs + 1)]
    return {name: [some[name] for some in taken[1:]] for name in calls}


def seconds(call: Call) -> float:
    """CPU seconds of this process in one call: the mean of as many as make ticks of the clock small beside them."""
    start, calls, spent = process_time(), 0, 0.0
    while spent < _LEAST:
        call()
        calls, spent = calls + 1, process_time() - start
    return spent / calls
