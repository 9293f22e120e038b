"""The demo runs on a table of one's own, and what it says is so."""

import csv
from pathlib import Path

import pytest
import torch

from captum_meta import demo

NAMES = ["age", "income", "debt", "rooms"]


@pytest.fixture
def table(tmp_path: Path) -> Path:
    x = torch.randn(80, 4, generator=torch.Generator().manual_seed(0))
    path = tmp_path / "rows.csv"
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*NAMES, "bought"])
        writer.writerows([*row.tolist(), int(row[0] * row[1] > 0)] for row in x)
    return path


def test_a_table_and_its_label(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:  # type: ignore[no-untyped-def]
    pytest.importorskip("matplotlib").use("Agg")
    monkeypatch.setattr(demo, "_PAIRS", 50)
    monkeypatch.setattr(demo, "_STEPS", 100)
    demo.main(["--data", str(table), "--label", "bought", "--folder", str(tmp_path / "out")])
    said = " ".join(capsys.readouterr().out.split())
    assert "16 rows of" in said and "4 features" in said and "times fewer" in said
    assert {path.name for path in (tmp_path / "out").iterdir()} == {"error_against_cost.png", "attributions_of_one_row.png"}


def test_a_model_of_ones_own(table: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_demo_model.py").write_text("model = lambda x: x[:, 0] * x[:, 1] + x[:, 4]\n")
    monkeypatch.syspath_prepend(tmp_path)
    subject = demo.own_model("my_demo_model:model", table)
    assert subject.target is None and subject.names == [*NAMES, "bought"] and subject.x.shape == (16, 5)
    assert torch.equal(subject.model(subject.x), subject.x[:, 0] * subject.x[:, 1] + subject.x[:, 4])


def test_the_gain_is_that_of_the_curves() -> None:
    def result(method: str, evaluations: int, error: float) -> demo.Measured:
        return demo.Measured(method, evaluations, 0.0, error, torch.zeros(1))

    captum = [result("Captum KernelShap", 100, 0.5), result("Captum KernelShap", 400, 0.01)]
    assert "MetaKernelShap after 20: 20 times fewer" in demo.gain(
        [result("MetaKernelShap", 10, 0.1), result("MetaKernelShap", 40, 0.001), *captum]
    )
    assert "did not reach" in demo.gain([result("MetaKernelShap", 10, 0.1), *captum])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--label", "bought"], "--data"),
        (["--data", "TABLE"], "--label"),
        (["--data", "TABLE", "--label", "sold"], "no column 'sold'"),
        (["--data", "TABLE", "--label", "age"], "80 different values"),
        (["--data", "nowhere.csv", "--label", "age"], "nowhere.csv"),
    ],
)
def test_mistakes_are_told(options: list[str], message: str, table: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(SystemExit):
        demo.main([str(table) if option == "TABLE" else option for option in options])
    assert message in capsys.readouterr().err
