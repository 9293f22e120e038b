"""Ways of explaining many rows at equal total cost."""

from __future__ import annotations

from math import inf, nan
from pathlib import Path

import pytest
import torch
from rich.console import Console

from captum_meta.attr import MetaKernelShap
from captum_meta.attr._adaptation import Adaptation
from captum_meta.attr._recommendation import recommend
from captum_meta.benchmark import ways
from captum_meta.benchmark.ways import ADAPT, CHEAP, MEMORY, TRIED, ZERO_SHOT, Outcome
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
    assert found.known == 40 and found.errors[MEMORY] == found.errors[ZERO_SHOT]  # after so few steps
    assert found.recommended == ZERO_SHOT and 0 < found.errors[ZERO_SHOT] < 0.2 and found.errors[ADAPT] == inf
    assert not list(ways.outcomes("wine/mlp/logit/zero", [found], tmp_path))


@pytest.mark.parametrize(("pays_after", "way"), [(100.0, CHEAP), (1e9, TRIED)])
def test_support_rows_are_tried_where_memory_is_of_no_use(
    pays_after: float, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ways, "ROWS", (10_000,))
    monkeypatch.setattr(ways, "BUDGETS", (2,))
    monkeypatch.setattr(ways, "_MOST_KNOWN", 40)
    monkeypatch.setattr(cross_fitted, "_MOST", 2)
    monkeypatch.setattr(MetaKernelShap, "adaptation", Adaptation(16, 5000, 0.1, 0.05, pays_after))
    (found,) = ways.outcomes("wine/mlp/logit/zero", [], tmp_path)
    assert found.errors[MEMORY] == found.errors[ZERO_SHOT] and found.recommended == way
    assert found.errors[TRIED] > 0 and found.against_zero_shot < 3


@pytest.mark.parametrize(
    ("rows", "share", "pays_after", "n_samples", "way"),
    [
        (10_000, 0.5, None, 24, "memory"),
        (10_000, 0.5, 10.0, 24, "memory"),
        (10_000, None, 10.0, 24, "memory"),
        (10_000, 0.0, None, 24, "adapt"),
        (1000, 0.0, None, 24, "zero-shot"),  # support rows cost a fifth of it all
        (10_000, 0.0, None, 48, "zero-shot"),
        (10_000, 0.0, 9000.0, 24, "adapt"),
        (10_000, 0.0, inf, 24, "zero-shot"),
        (10_000, 0.0, nan, 24, "zero-shot"),
    ],
)
def test_what_is_known_of_the_model_counts(
    rows: int, share: float | None, pays_after: float | None, n_samples: int, way: str
) -> None:
    told = recommend(rows, 12, n_samples, share, pays_after)
    assert told.way == way and told.reason
    support = 16 * (9 + 32 * 12) if way == "adapt" and pays_after is None else 0
    assert told.evaluations == rows * (9 + n_samples) + support


@pytest.mark.parametrize(("n_players", "way"), [(15, "adapt"), (16, "zero-shot")])
def test_rows_whose_coalitions_are_chosen_without_the_border_get_no_support_rows_on_trial(n_players: int, way: str) -> None:
    for pays_after in (None, 10.0):
        assert recommend(100_000, n_players, 2 * n_players, 0.0, pays_after).way == way


def test_rows_of_steps_keep_their_coalitions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_fitted, "_MOST", 2)
    x = torch.randn(40, 6, generator=torch.Generator().manual_seed(0))
    attr = MetaKernelShap(lambda rows: (rows > 0.3).float().prod(1) + (rows[:, 0] > 0).float(), memory=100)
    attr.attribute(x)
    assert attr.recommend(10_000, 6).way == "zero-shot"
    assert attr.recommend(10_000, 6, 24).way == "zero-shot"


def test_a_front_end_says_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cross_fitted, "_MOST", 2)
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 6, generator=generator)
    attr = MetaKernelShap(lambda rows: (20 * rows.sum(1)).sin(), memory=100)
    assert attr.recommend(10_000, 6).way == "memory"
    attr.attribute(x)
    assert attr.recommend(10_000, 6).way == "adapt"
    attr.adapt(x[:6])
    told = attr.recommend(int(attr.adaptation.pays_after) + 1, 6)
    assert told.way == "adapt" and "left-out support rows" in told.reason
    assert attr.recommend(int(attr.adaptation.pays_after) - 1, 6).way == "zero-shot"
    assert attr.reset().recommend(10_000, 6).way == "memory"


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
