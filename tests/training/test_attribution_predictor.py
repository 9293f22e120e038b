"""Tables explained with the Trainer: files, errors of rows, interruptions, processes."""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from captum.attr import InputXGradient, IntegratedGradients
from explained_table import ARGUMENTS, BATCH, FEATURES, QUIET, ROWS, Deadly, explain, table
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from captum_meta.attr import MetaKernelShap
from captum_meta.training import AttributionPredictor, AttributionWriter, read_attributions, whole_batches
from captum_meta.training.attribution_files import read_batch


def trainer(*callbacks: Any) -> Trainer:
    return Trainer(accelerator="cpu", devices=1, callbacks=list(callbacks), **QUIET)  # type: ignore[arg-type]


def predicted(method: Any, loader: Any, folder: Path, **arguments: Any) -> dict[str, Tensor]:
    assert trainer(AttributionWriter(folder)).predict(AttributionPredictor(method, **arguments), loader) in (None, [])
    return read_attributions(folder)


def in_a_process(folder: Path, calls: int = -1, devices: int = 1) -> subprocess.CompletedProcess[bytes]:
    script = str(Path(__file__).with_name("explained_table.py"))
    return subprocess.run([sys.executable, script, str(folder), str(calls), str(devices)], capture_output=True, timeout=300)


def batches_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.glob("batch-*"))}


def manifest_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "manifest.json").read_text())
    content.pop("times", None)
    return content


class TestWhatIsWritten:
    def test_is_what_the_method_says_of_each_batch(self, tmp_path: Path) -> None:
        explain(tmp_path)
        x, y = table().tensors
        method = MetaKernelShap(Deadly())
        found = [method.attribute(x[i : i + BATCH], target=y[i : i + BATCH], **ARGUMENTS) for i in range(0, ROWS, BATCH)]
        written = read_attributions(tmp_path)
        assert torch.equal(written["attributions"], torch.cat([values for values, _ in found]))
        assert torch.equal(written["error_estimate"], torch.cat([bound for _, bound in found]))
        manifest = manifest_of(tmp_path)
        assert manifest["complete"] and manifest["errors"] == [] and len(manifest["files"]) == ROWS // BATCH
        assert manifest["arguments"] == ARGUMENTS

    def test_mappings_and_several_inputs(self, tmp_path: Path) -> None:
        pair = (torch.ones(3, 2), 2 * torch.ones(3, 1))
        data = [{"inputs": [part[row] for part in pair], "baselines": [part[row] / 2 for part in pair]} for row in range(3)]
        method = IntegratedGradients(lambda a, b: (a**2).sum(1) + b[:, 0])
        written = predicted(method, DataLoader(data, batch_size=2), tmp_path, n_steps=10)  # type: ignore[arg-type]
        torch.testing.assert_close(written["attributions.0"], torch.full((3, 2), 0.75))
        torch.testing.assert_close(written["attributions.1"], torch.ones(3, 1))

    def test_rows_are_called_as_they_are(self, tmp_path: Path) -> None:
        pandas = pytest.importorskip("pandas")
        pytest.importorskip("pyarrow")
        writer = AttributionWriter(tmp_path, "parquet", columns=["a", "b"], rows=["x", "y", "z"])
        loader = DataLoader(torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]]), batch_size=2)  # type: ignore[arg-type]
        trainer(writer).predict(AttributionPredictor(InputXGradient(lambda x: x.sum(1))), loader)
        written = pandas.concat([pandas.read_parquet(path) for path in sorted(tmp_path.glob("*.parquet"))])
        assert written["row"].tolist() == ["x", "y", "z"] and written["b"].tolist() == [2.0, 4.0, 6.0]
        assert written["error"].isna().all()


def test_without_a_writer_predictions_are_returned() -> None:
    loader = DataLoader(torch.tensor([[1.0, 2.0], [3.0, 4.0]]), batch_size=1)  # type: ignore[arg-type]
    found = trainer().predict(AttributionPredictor(InputXGradient(lambda x: x.square().sum(1))), loader)
    assert found is not None
    assert [batch.values["attributions"].tolist() for batch in found] == [[[2.0, 8.0]], [[18.0, 32.0]]]
    assert [batch.number for batch in found] == [0, 1] and not found[0].errors


class TestErrors:
    @staticmethod
    def fussy(x: Tensor) -> Tensor:
        if bool((x[:, 0] < 0).any()):
            raise ValueError("no negative amounts")
        return x.sum(1)

    def test_a_row_that_raises_costs_its_row(self, tmp_path: Path) -> None:
        x = torch.tensor([[1.0, 2.0], [-1.0, 2.0], [3.0, 4.0]])
        written = predicted(InputXGradient(self.fussy), DataLoader(x, batch_size=3), tmp_path)  # type: ignore[arg-type]
        assert written["attributions"][[0, 2]].tolist() == [[1.0, 2.0], [3.0, 4.0]]
        assert written["attributions"][1].isnan().all()
        assert manifest_of(tmp_path)["errors"] == [{"row": 1, "error": "ValueError: no negative amounts"}]

    def test_a_mistake_in_the_call_is_raised(self, tmp_path: Path) -> None:
        with pytest.raises(ValueError, match="no negative amounts"):
            predicted(InputXGradient(self.fussy), DataLoader(-torch.ones(4, 2), batch_size=2), tmp_path)  # type: ignore[arg-type]

    def test_a_batch_of_broken_rows_later_is_none(self, tmp_path: Path) -> None:
        x = torch.cat([torch.ones(2, 2), -torch.ones(2, 2)])
        written = predicted(InputXGradient(self.fussy), DataLoader(x, batch_size=2), tmp_path)  # type: ignore[arg-type]
        assert written["attributions"].isnan().any(1).tolist() == [False, False, True, True]

    def test_other_arguments_are_refused(self, tmp_path: Path) -> None:
        loader = DataLoader(torch.ones(2, 2), batch_size=2)  # type: ignore[arg-type]
        predicted(MetaKernelShap(lambda x: x.sum(1)), loader, tmp_path, n_samples=4)
        with pytest.raises(ValueError, match="another arguments"):
            predicted(MetaKernelShap(lambda x: x.sum(1)), loader, tmp_path, n_samples=6)

    def test_another_model_is_refused(self, tmp_path: Path) -> None:
        loader = DataLoader(torch.ones(2, 2), batch_size=2)  # type: ignore[arg-type]
        net = torch.nn.Linear(2, 1)
        for change in (0.0, 1.0):
            net.weight.data += change
            with pytest.raises(ValueError, match="another model") if change else nullcontext():
                predicted(InputXGradient(net), loader, tmp_path, target=0)

    def test_a_model_that_answers_for_the_whole_batch_is_explained_row_by_row(self, tmp_path: Path) -> None:
        x = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
        loader = DataLoader(x, batch_size=2)  # type: ignore[arg-type]
        written = predicted(MetaKernelShap(lambda x: x.sum()), loader, tmp_path)
        torch.testing.assert_close(written["attributions"], x)

    @pytest.mark.parametrize(("content", "told"), [({"x": torch.ones(1, 1)}, "needs inputs"), ("rows", "is a str")])
    def test_batches_of_other_forms(self, tmp_path: Path, content: Any, told: str) -> None:
        loader = DataLoader([content], batch_size=None)  # type: ignore[arg-type]
        with pytest.raises(ValueError, match=told):
            predicted(InputXGradient(self.fussy), loader, tmp_path)

    def test_shuffled_rows(self) -> None:
        with pytest.raises(ValueError, match="shuffle=False"):
            whole_batches(DataLoader(table(), shuffle=True))


class TestInterruptions:
    def test_killed_runs_go_on(self, tmp_path: Path) -> None:
        explain(tmp_path / "whole")
        run = in_a_process(tmp_path / "killed", calls=11)
        assert run.returncode == -9, run.stderr.decode()[-2000:]
        assert len(batches_in(tmp_path / "killed")) == 2 and not manifest_of(tmp_path / "killed")["complete"]
        explain(tmp_path / "killed")
        assert batches_in(tmp_path / "killed") == batches_in(tmp_path / "whole")
        assert manifest_of(tmp_path / "killed") == manifest_of(tmp_path / "whole")

    @pytest.mark.slow
    def test_killed_ten_times_on_two_processes(self, tmp_path: Path) -> None:
        explain(tmp_path / "whole")
        generator = torch.Generator().manual_seed(0)
        for _ in range(10):
            in_a_process(tmp_path / "killed", calls=int(torch.randint(1, 10, (), generator=generator)), devices=2)
        assert in_a_process(tmp_path / "killed", devices=2).returncode == 0
        assert batches_in(tmp_path / "killed") == batches_in(tmp_path / "whole")

    def test_what_is_there_is_not_explained_again(self, tmp_path: Path) -> None:
        explain(tmp_path)
        before = {path: path.stat().st_mtime_ns for path in tmp_path.glob("batch-*")}
        explain(tmp_path, calls=1)  # the model would kill this process
        assert {path: path.stat().st_mtime_ns for path in tmp_path.glob("batch-*")} == before


class TestProcesses:
    @pytest.mark.slow
    def test_two_write_what_one_writes(self, tmp_path: Path) -> None:
        run = in_a_process(tmp_path / "two", devices=2)
        assert run.returncode == 0, run.stderr.decode()[-2000:]
        explain(tmp_path / "one")
        assert batches_in(tmp_path / "two") == batches_in(tmp_path / "one")
        assert manifest_of(tmp_path / "two") == manifest_of(tmp_path / "one")


class Endless(IterableDataset[Tensor]):
    def __iter__(self) -> Any:
        return (torch.full((FEATURES,), float(row)) for row in range(300))


def test_nothing_is_kept_in_memory(tmp_path: Path) -> None:
    alive = trainer(AttributionWriter(tmp_path))
    alive.predict(AttributionPredictor(InputXGradient(lambda x: x.sum(1))), DataLoader(Endless(), batch_size=7))
    assert alive.predict_loop.predictions == []
    assert read_attributions(tmp_path)["attributions"][:, 0].tolist() == list(range(300))
    last = sorted(tmp_path.glob("batch-*"))[-1]
    assert read_batch(last)[1] == list(range(294, 300))
