"""Warnings name the line that called, whatever stands between."""

import warnings
from typing import Any

from captum_meta._warnings import warn

_OURS = """
from contextlib import contextmanager
from functools import cached_property

@contextmanager
def context():
    yield

class Within:
    @cached_property
    def cached(self):
        return self.decorated()

    @context()
    def decorated(self):
        warn("here")
"""


def test_warnings_name_the_line_behind_decorators_and_cached_properties() -> None:
    ours: dict[str, Any] = {"__name__": "captum_meta.within", "warn": warn}
    exec(_OURS, ours)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        ours["Within"]().cached  # noqa: B018
    assert [warning.filename for warning in told] == [__file__]
