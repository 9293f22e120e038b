"""Ways of explaining many rows at equal total cost."""

from __future__ import annotations

from math import inf
from pathlib import Path

import pytest
from rich.console import Console

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark import ways
from captum_meta.benchmark.ways import ADAPT, CHEAP, MEMORY, ZERO_SHOT, Outcome
from captum_meta.nn import cross_fitted


def outcome(memory: float, rows: int = 1000) -> Outcome:
    return Outcome("a", rows, 2, 178, {ZERO_SHOT: 0.1, ADAPT: inf, CHEAP: 0.05, MEMORY: memory}, MEMORY)


def test_ratios_and_their_summary() -> None:
    found = [outcome(0.2), outcome(0.0125)]
    assert found[0].against_best == pytest.approx(4) and found[1].against_best == 1
    (line,) = ways.summary(found)
    assert "0.50 in the geometric mean, at most 2.00" in line and "at most 4.00, above 1.1 in 1 of 2 models" in line


def test_what_cannot_be_paid_has_no_error() -> None:
    console = Console(width=140, record=True)
    console.print(ways.table([outcome(0.02)]))
    told = console.export_text()
    assert "0.0200*" in told and " - " in told and "inf" not in told


def test_a_held_out_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ways, "ROWS", (40,))
    monkeypatch.setattr(ways, "BUDGETS", (2,))
    monkeypatch.setattr(cross_fitted, "_MOST", 20)
    (found,) = ways.outcomes("wine/mlp/logit/zero", [], tmp_path)
    assert found.known == 40 and found.recommended == MEMORY
    assert found.errors[ADAPT] == inf and 0 < found.errors[ZERO_SHOT] < 0.2 and 0 < found.errors[MEMORY] < 0.2
    assert not list(ways.outcomes("wine/mlp/logit/zero", [found], tmp_path))


@pytest.mark.parametrize(
    ("rows", "n_players", "n_samples", "way"),
    [
        (1000, 12, None, "memory"),
        (31, 12, None, "zero-shot"),
        (1000, 12, 10, "zero-shot"),
        (1000, 12, 0, "zero-shot"),
        (10_000, 12, 0, "adapt"),
        (10_000, 300, None, "zero-shot"),
    ],
)
def test_what_is_recommended(rows: int, n_players: int, n_samples: int | None, way: str) -> None:
    told = MetaKernelShap(len).recommend(rows, n_players, n_samples)
    assert told.way == way and told.way in repr(told) and told.evaluations >= rows * 9


def test_what_an_adapted_call_would_cost() -> None:
    """10,000 rows of three gradients; 16 support rows of three gradients and 32 evaluations for each of 12 players."""
    assert MetaKernelShap(len).recommend(10_000, 12, 0).evaluations == 10_000 * 9 + 16 * (9 + 32 * 12)


def test_no_rows_are_a_mistake() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        MetaKernelShap(len).recommend(0, 3)
