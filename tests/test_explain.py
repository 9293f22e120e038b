"""`captum-meta explain` from its arguments to its files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from captum_meta.attr import MetaKernelShap
from captum_meta.cli import main
from captum_meta.training import attribution_files, read_attributions

MODEL = """
import torch

def linear(x):
    return torch.stack([x @ torch.tensor([1.0, -2.0, 3.0]), x[:, 0] * x[:, 1]], dim=1)

def swapped(x):
    return x[:, :2]  # debt comes second here

def make_net():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Tanh(), torch.nn.Linear(4, 2))

def fussy(x):
    if bool((x[:, 0] > 9).any()):
        raise ValueError("too old")
    return x.sum(1)

def broken(x):
    raise RuntimeError("no data base")

def total(x):
    return x.sum()

class Predictor:
    def predict_proba(self, x):
        return x.detach().numpy()[:, :2]

predictor = Predictor()
"""
FILES = "--format safetensors"
ROWS = [[1.0, 2.0, 3.0], [0.5, -1.0, 0.0], [-2.0, 0.5, 1.0], [10.0, 1.0, 1.0], [3.0, 2.0, -1.0]]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("explained_models.py").write_text(MODEL)
    lines = [f"{name},{','.join(map(str, row))},{n % 2}" for n, (name, row) in enumerate(zip("abcde", ROWS, strict=True))]
    Path("rows.csv").write_text("\n".join(["who,age,income,debt,label", *lines]) + "\n")
    return tmp_path


def explain(model: str, *options: str) -> dict[str, torch.Tensor]:
    told = ["--data", "rows.csv", "--out", "out", "--id", "who", "--columns", "age,income,debt", "--format", "safetensors"]
    main(["explain", "--model", f"explained_models:{model}", *told, *options])
    return read_attributions("out")


def test_rows_of_a_function(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain("linear", "--target", "0", "--batch-size", "2", "--error-estimates")
    torch.testing.assert_close(found["attributions"], torch.tensor(ROWS) * torch.tensor([1.0, -2.0, 3.0]))
    assert found["error_estimate"].shape == (5,)
    manifest = json.loads(Path("out/manifest.json").read_text())
    assert manifest["files"] == [f"batch-{number:08d}.safetensors" for number in range(3)]
    assert manifest["columns"] == ["age", "income", "debt"]
    told = capsys.readouterr().out
    assert "5 rows explained, 0 raised" in told and "mean error estimate" in told
    assert told.index("debt") < told.index("income")
    assert "In this run 5 rows" in told and "per row" in told
    assert Path("out/importance.png").is_file()


def test_a_run_that_is_repeated_explains_nothing(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(2):
        explain("linear", "--target", "0", "--n-samples", "4")
    assert "In this run 0 rows" in capsys.readouterr().out


def test_targets_of_a_column_and_a_model_that_is_made(folder: Path) -> None:
    found = explain("make_net", "--target", "label", "--n-samples", "4", "--baselines", "mean")["attributions"]
    import explained_models  # type: ignore[import-not-found]

    x = torch.tensor(ROWS)
    asked = {"target": torch.tensor([0, 1, 0, 1, 0]), "baselines": x.mean(0, keepdim=True), "n_samples": 4}
    torch.testing.assert_close(found, MetaKernelShap(explained_models.make_net()).attribute(x, **asked))


def test_captums_methods_background_and_baselines(folder: Path) -> None:
    Path("start.csv").write_text("age,income,debt\n1,1,1\n")
    found = explain(
        "linear", "--target", "0", "--method", "IntegratedGradients", "--baselines", "start.csv", "--n-steps", "5"
    )
    weights = torch.tensor([1.0, -2.0, 3.0])
    torch.testing.assert_close(found["attributions"], (torch.tensor(ROWS) - 1) * weights)
    options = "--data rows.csv --out more --columns age,income,debt --target 0 --background rows.csv --format safetensors"
    main(["explain", "--model", "explained_models:linear", *options.split(), "--n-samples", "100"])
    expected = (torch.tensor(ROWS) - torch.tensor(ROWS).mean(0)) * weights
    torch.testing.assert_close(read_attributions("more")["attributions"], expected, atol=1e-4, rtol=1e-4)


def test_a_row_that_raises(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = explain("fussy")["attributions"]
    assert found.isnan().any(1).tolist() == [False, False, False, True, False]
    assert "row d: ValueError: too old" in capsys.readouterr().out


def test_parquet(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.read_csv("rows.csv").to_parquet("rows.parquet")
    options = "--data rows.parquet --out out --id who --columns age,debt,income --target 1 --n-samples 6"
    main(["explain", "--model", "explained_models:swapped", *options.split()])
    found = pandas.read_parquet("out/batch-00000000.parquet")
    assert found.columns.tolist() == ["row", "age", "debt", "income", "error"] and found["row"].tolist() == list("abcde")
    assert found["debt"].tolist() == pytest.approx([3.0, 0.0, 1.0, 1.0, -1.0]) and found["income"].abs().max() < 1e-6


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"--model": "explained_models"}, "package.module:callable"),
        ({"--model": "no_such_module:net"}, "no module"),
        ({"--model": "explained_models:nothing"}, "no 'nothing'"),
        ({"--data": "none.csv"}, "no file none.csv"),
        ({"--data": "explained_models.py"}, "pass a .csv, .parquet or .feather"),
        ({"--columns": "age,height"}, "no column 'height'"),
        ({"--columns": "who,age"}, "not made of numbers: 'who'"),
        ({"--method": "Guess"}, "no method 'Guess'"),
        ({"--baselines": "rows.csv"}, "5 rows"),
        ({"--baselines": "nothing"}, "a number, 'mean', or the file"),
        ({"--baselines": "0", "--background": "rows.csv"}, "pass one of the two"),
        ({"--columns": "who,age,label"}, "'who' ('a')"),
        ({"--target": "7"}, "from 0 to 1"),
        ({"--target": "nothing"}, "or a column of rows.csv: who, age"),
        ({"--target": "who"}, "'who' of rows.csv holds 'a'"),
        ({"--method": "LayerConductance"}, "made of a model alone"),
        ({"--method": "KernelShap", "--memory": "10"}, "KernelShap has no --memory"),
        ({"--n-steps": "3"}, "MetaKernelShap has no --n-steps"),
        ({"--method": "GradientShap"}, "pass --baselines"),
        ({"--model": "explained_models:broken"}, "broken raised RuntimeError: no data base. It is called"),
        ({"--model": "explained_models:predictor"}, "pass explained_models:predictor.predict_proba"),
        ({"--data": "twice.csv"}, "two columns called 'age'"),
        ({"--data": "ragged.csv"}, "Row 1 of ragged.csv has 2 entries for 3 columns"),
        ({"--data": "latin.csv"}, "UTF-8"),
        ({"--data": "broken.parquet"}, "cannot be read"),
        ({"--out": "rows.csv"}, "pass another --out"),
    ],
)
def test_mistakes(folder: Path, capsys: pytest.CaptureFixture[str], changed: dict[str, str], told: str) -> None:
    options = {"--model": "explained_models:linear", "--data": "rows.csv", "--out": "out", "--columns": "age,income,debt"}
    Path("twice.csv").write_text("age,age\n1,2\n")
    Path("ragged.csv").write_text("age,income,debt\n1,2,3\n1,2\n")
    Path("latin.csv").write_bytes("age,income,dette réelle\n1,2,3\n".encode("latin1"))
    Path("broken.parquet").write_bytes(b"PAR1")
    if changed.get("--data", "").endswith("parquet"):
        pytest.importorskip("pyarrow")
    with pytest.raises(SystemExit) as stopped:
        main(["explain", *(word for pair in (options | changed).items() for word in pair)])
    assert stopped.value.code == 1 and told in capsys.readouterr().err.replace("\n", " ")


def test_a_target_without_an_index_is_asked_for_in_words_of_the_shell(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        explain("linear")
    assert "pass --target to select one." in capsys.readouterr().err


def test_the_column_of_targets_is_no_feature(folder: Path) -> None:
    Path("numbers.csv").write_text("age,income,debt,label\n1,2,3,0\n3,1,2,1\n")
    main(f"explain --model explained_models:linear --data numbers.csv --out out --target label {FILES}".split())
    assert json.loads(Path("out/manifest.json").read_text())["columns"] == ["age", "income", "debt"]


def test_rows_with_missing_values_are_listed(folder: Path) -> None:
    Path("gaps.csv").write_text("\ufeffage,income,debt\n1,,3\n3,1,2\n", encoding="utf-8")
    main(f"explain --model explained_models:linear --data gaps.csv --out out --target 0 {FILES}".split())
    (error,) = json.loads(Path("out/manifest.json").read_text())["errors"]
    assert error["row"] == 0 and "missing values" in error["error"]
    assert read_attributions("out")["attributions"].isfinite().all(1).tolist() == [False, True]


def test_feather_and_numpy_models(folder: Path) -> None:
    pandas = pytest.importorskip("pandas")
    pytest.importorskip("pyarrow")
    pandas.DataFrame(ROWS, columns=["age", "income", "debt"]).to_feather("rows.feather")
    told = "--model explained_models:predictor.predict_proba --data rows.feather --out out --target 1 --n-samples 6"
    main(["explain", *told.split(), *FILES.split()])
    expected = torch.tensor(ROWS) * torch.tensor([0.0, 1.0, 0.0])
    torch.testing.assert_close(read_attributions("out")["attributions"], expected)


def test_another_model_or_other_data_are_refused(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    explain("linear", "--target", "0")
    for model, change in (("fussy", "2.0"), ("linear", "2.5")):
        Path("rows.csv").write_text(Path("rows.csv").read_text().replace("2.0", change))
        with pytest.raises(SystemExit):
            explain(model, "--target", "0")
        assert "explanations with another source" in capsys.readouterr().err.replace("\n", " ")


def test_a_full_disk(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    written = attribution_files.write_batch

    def write(path: Path, *content: Any) -> None:
        if path.name == "batch-00000001.safetensors":
            raise OSError(28, "No space left on device")
        written(path, *content)

    with monkeypatch.context() as full:
        full.setattr(attribution_files, "write_batch", write)
        with pytest.raises(SystemExit):
            explain("linear", "--target", "0", "--batch-size", "2")
    assert "No space left on device. Files that were written are kept" in capsys.readouterr().err.replace("\n", " ")
    assert len(explain("linear", "--target", "0", "--batch-size", "2")["attributions"]) == 5
    assert "In this run 3 rows" in capsys.readouterr().out
