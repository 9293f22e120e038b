"""A comparison is resumable, and its tables, files and figures say what was measured."""

import csv
import json
from dataclasses import replace
from io import StringIO
from math import inf
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from captum_meta.benchmark import compare as comparison
from captum_meta.benchmark.best_peer import best_peer_ratios, best_peer_table
from captum_meta.benchmark.cli import main
from captum_meta.benchmark.compare import Result, compare
from captum_meta.benchmark.journal import append_line, read_lines
from captum_meta.benchmark.methods import ZERO_SHOT
from captum_meta.benchmark.summary import curves, family_group, interval, size_group, summarise, tables, write
from captum_meta.benchmark.support_cost import (
    PAIRS,
    evaluations_for,
    outcomes,
    rows_until_paid,
    support_cost,
    support_table,
)
from tests.attr.conftest import probe

NAMES = ["wine/mlp/logit/zero", "diabetes/mlp/value/row", "diabetes/trees/value/row"]
METHODS = ["Captum IntegratedGradients", "Captum, one more, completed"]


def run(folder: Path) -> list[Result]:
    return compare("path", NAMES, folder / "results.jsonl", folder / "references", METHODS)


def timeless(results: list[Result]) -> list[Result]:
    return [replace(r, seconds=0.0) for r in results]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("benchmark")
    run(folder)
    return folder


def test_every_method_is_measured_at_every_budget_and_trees_have_no_path(folder: Path) -> None:
    results = [Result(**entry) for entry in read_lines(folder / "results.jsonl")]
    assert {(r.problem, r.method, r.budget) for r in results} == {
        (name, method, steps) for name in NAMES[:2] for method in METHODS for steps in comparison.BUDGETS["path"]
    }
    assert len(results) == 12
    assert {(r.problem, r.n_players, r.family) for r in results} == {(NAMES[0], 13, "mlp"), (NAMES[1], 10, "mlp")}


@pytest.mark.parametrize("lost", [0, 1, 40, 700])
def test_a_killed_run_is_taken_up_where_it_stopped(folder: Path, lost: int, monkeypatch: pytest.MonkeyPatch) -> None:
    journal = folder / "results.jsonl"
    whole = journal.read_text()
    kept = whole[: len(whole) - lost]
    finished = kept.count("\n")
    journal.write_text(kept)
    measured = []
    original = comparison._measure
    monkeypatch.setattr(comparison, "_measure", lambda *a: measured.append(a) or original(*a))
    results = run(folder)
    assert len(measured) == 12 - finished
    assert timeless(results) == timeless([Result(**json.loads(line)) for line in whole.splitlines()])
    assert timeless([Result(**json.loads(line)) for line in journal.read_text().splitlines()]) == timeless(results)


def test_a_file_that_is_no_journal_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("these are\nmy notes\n")
    with pytest.raises(ValueError, match="Line 1"):
        read_lines(path)
    assert path.read_text() == "these are\nmy notes\n"
    append_line(tmp_path / "new" / "journal", {"a": 1})
    assert read_lines(tmp_path / "new" / "journal") == [{"a": 1}]
    assert read_lines(tmp_path / "none") == []


def test_unknown_methods_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="There are no methods"):
        compare("path", NAMES, tmp_path / "r", tmp_path, ["Nonsense"])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--methods", "Nonsense"], "There are no methods ['Nonsense']: pass some of ['MetaKernelShap, zero-shot'"),
        (["--learners", "nonsense"], "There is no learner 'nonsense' for shapley attributions: pass one of ["),
        (["nonsense"], "there is no comparison 'nonsense': pass one of adaptation,"),
        (["adaptation", "--learners", "nonsense"], "There are no learners ['nonsense']: pass some of ['deep-kernel',"),
        (["optimizers", "--learner", "nonsense"], "There is no learner 'nonsense' for shapley attributions: pass one of ["),
    ],
)
def test_the_command_names_what_there_is(arguments: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(arguments)
    assert told in capsys.readouterr().err


def test_nine_of_ten_intervals_hold_the_mean() -> None:
    draws = np.random.default_rng(0).normal(size=(200, 40))
    ends = np.array([interval(sample) for sample in draws])
    covered = ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean()
    assert 0.83 < covered < 0.95
    ends = np.array([interval(sample, np.median) for sample in draws])
    assert 0.83 < ((ends[:, 0] < 0) & (ends[:, 1] > 0)).mean() < 0.97
    assert interval(np.full(5, 2.0)) == (2.0, 2.0)


def made_up() -> list[Result]:
    """Zero-shot errors of 0.1 / evaluations; adapted ones a tenth of it; on three problems."""
    results = []
    for name, family, n_players in (
        ("wine/mlp/logit/zero", "mlp", 13),
        ("adult/trees/logit/zero", "trees", 14),
        ("digits-patches/cnn/logit/zero", "cnn", 16),
        ("mnist-patches/cnn/logit/zero", "cnn", 49),
    ):
        for budget in (2, 4, 8):
            for method, factor in (("MetaKernelShap, zero-shot", 1.0), ("MetaKernelShap, 16 rows", 0.5)):
                plain = Result(name, family, n_players, method, budget, 1.0, 0.001 * n_players)
                results.append(replace(plain, error=factor / plain.evaluations("shapley")))
    return results


def test_errors_beside_the_best_peer_of_each_model() -> None:
    ours = made_up()
    peers = [
        replace(r, method=name, error=r.error * factor)
        for r in ours[::2]
        for name, factor in (("shapiq OddSHAP", 4.0), ("shapiq SVARM", 2.0 if r.n_players < 49 else 0.5))
    ]
    ratios = best_peer_ratios(ours + peers, ZERO_SHOT)
    expected = {r.problem: 0.5 if r.n_players < 49 else 2.0 for r in ours}
    assert ratios == pytest.approx({(r.problem, r.budget): expected[r.problem] for r in ours}, rel=1e-6)
    exact = [replace(r, budget=512, error=1e-15) for r in ours + peers]
    assert best_peer_ratios(ours + peers + exact, ZERO_SHOT) == ratios
    table = best_peer_table(ours + peers, "shapley", family_group)
    assert table is not None
    text = StringIO()
    Console(file=text, width=200).print(table)
    assert text.getvalue().count("1.0 (1/2)") == 3  # one of both image models behind
    assert text.getvalue().count(".50 (1/1)") == 6
    assert best_peer_table(ours, "shapley", family_group) is None


def test_other_budgets(tmp_path: Path) -> None:
    some = compare("path", NAMES[:1], tmp_path / "r.jsonl", tmp_path / "references", METHODS[:1], budgets=[4, 7])
    assert [(r.budget, r.evaluations("path")) for r in some] == [(4, 12), (7, 21)]


def test_groups_of_families_and_of_sizes() -> None:
    results = made_up()[::6]
    assert [family_group(r) for r in results] == [
        "MLPs, residual nets, transformers",
        "boosted trees",
        "image patches",
        "image patches",
    ]
    assert [size_group(r) for r in results] == ["13 to 20 players"] * 3 + ["21 players and more"]
    assert size_group(replace(results[0], n_players=12)) == "8 to 12 players"


def test_summaries_are_medians_and_means_over_the_problems() -> None:
    summaries = summarise(made_up(), "shapley", family_group)
    (found,) = (s for s in summaries if s.group == "image patches" and s.budget == 4 and "zero" in s.method)
    errors = [1 / (4 * 16 + 9), 1 / (4 * 49 + 9)]
    assert found.problems == 2
    assert found.evaluations == (4 * 16 + 9 + 4 * 49 + 9) / 2
    assert found.mean == found.median == pytest.approx(sum(errors) / 2)
    assert (found.mean_low, found.mean_high) == pytest.approx((errors[1], errors[0]))
    assert found.seconds == pytest.approx(0.001 * (16 + 49) / 2)


def test_tables_and_files_say_the_same(tmp_path: Path) -> None:
    summaries = summarise(made_up(), "shapley", size_group)
    console = Console(width=170, file=StringIO())
    console.print(*tables(summaries, "multiples of M"))
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "13 to 20 players (3 models)" in text and "21 players and more (1 models)" in text
    assert f"{1 / (2 * 49 + 9):.4f}".removeprefix("0") in text
    write(summaries, tmp_path / "s.json")
    write(summaries, tmp_path / "s.csv")
    entries = json.loads((tmp_path / "s.json").read_text())
    assert len(entries) == len(summaries) == 12
    with (tmp_path / "s.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [float(row["median"]) for row in rows] == [entry["median"] for entry in entries]
    with pytest.raises(ValueError, match=r"\.csv"):
        write(summaries, tmp_path / "s.txt")


def test_figures_have_a_panel_for_each_group(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    from captum_meta.benchmark.figures import family_figures

    panels = curves(summarise(made_up(), "shapley", family_group))
    assert len(panels) == 3
    points = panels["boosted trees"]["MetaKernelShap, zero-shot"]
    assert points == [(2.0 + k * 14, pytest.approx(1 / (2 + k * 14))) for k in (2, 4, 8)]
    paths = family_figures(panels, tmp_path / "figures")
    assert [path.name for path in paths][1:] == ["boosted-trees.png", "image-patches.png"] or len(paths) == 3
    assert all(path.read_bytes()[:4] == b"\x89PNG" for path in paths)


def test_evaluations_for_an_error_are_interpolated_as_a_power() -> None:
    curve = [(float(n), 3 * n**-1.5) for n in (10, 40, 200)]
    for n in (10, 17, 40, 100, 200):
        assert evaluations_for(3 * n**-1.5, curve) == pytest.approx(n)
    assert evaluations_for(1.0, curve) == 10
    assert evaluations_for(1e-9, curve) == inf


def test_rows_until_support_has_paid() -> None:
    without = [(50.0, 0.1), (100.0, 0.01), (200.0, 0.001)]
    assert rows_until_paid(1000, 50, 0.01, without) == (1000 / 50, True)
    assert rows_until_paid(1000, 50, 0.0001, without) == (1000 / 150, False)
    assert rows_until_paid(1000, 50, 0.1, without) == (inf, True)


def test_support_costs_its_references_and_its_evidence() -> None:
    references, evidence = 200 * 3, 10 * 3 + 3  # f of the inputs, by which rows are checked, is part of the evidence
    assert support_cost("path", 7) == 16 * (references + evidence) + probe(16)


def test_the_support_table_names_its_cost() -> None:
    results = [
        replace(r, method=r.method.replace("KernelShap", "IntegratedGradients")) for r in made_up() if r.family != "trees"
    ]
    table = support_table(results, "path")
    assert table is not None
    console = Console(width=200, file=StringIO())
    console.print(table)
    assert f"{support_cost('path', 13):,}" in console.file.getvalue()  # type: ignore[attr-defined]
    assert support_table([r for r in results if "16 rows" not in r.method], "path") is None


def test_better_and_worse_are_counted_a_budget_and_rounding_is_equal() -> None:
    plain, adapted = PAIRS["path"]
    errors = {"a": (0.5, 0.4), "b": (0.5, 0.6), "c": (0.5, 0.52), "d": (1e-9, 1e-5), "e": (0.5, 0.1)}
    results = [
        Result(name, "mlp", 8, method, 3, error, 0.0)
        for name, pair in errors.items()
        for method, error in zip((plain, adapted), pair, strict=True)
    ]
    assert outcomes(results, "path") == {3: (5, 2, 1)}
