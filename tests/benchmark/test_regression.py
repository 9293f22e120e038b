"""The shipped weights do not become worse."""

import json

import pytest

from tests.benchmark.floor import RECORDED, errors

ROOM = 1.05
"""Models trained on another machine come out a little different, and so do the errors."""


@pytest.fixture(scope="module")
def measured() -> dict[str, float]:
    return errors()


@pytest.mark.parametrize("case", json.loads(RECORDED.read_text()))
def test_errors_do_not_rise(case: str, measured: dict[str, float]) -> None:
    recorded = json.loads(RECORDED.read_text())[case]
    assert measured[case] <= recorded * ROOM, f"{case}: {measured[case]:.3g} is more than the recorded {recorded:.3g}"


def test_everything_measured_is_recorded(measured: dict[str, float]) -> None:
    assert set(measured) == set(json.loads(RECORDED.read_text()))
