"""The benchmark of calibrated bounds: it judges rows as ``attribute`` returns them."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_meta.attr import CalibratedAttribution, MetaKernelShap
from captum_meta.attr._runs import compared
from captum_meta.benchmark import trust
from captum_meta.benchmark.cli import main
from captum_meta.benchmark.heldout import held_out_names, load_held_out

pytestmark = pytest.mark.usefixtures("few_trees")


def model(x: Tensor) -> Tensor:
    return (torch.tanh(2 * x[:, 0] * x[:, 1] * x[:, 2]) + x.prod(1) + x.sum(1)).unsqueeze(1)


def test_the_models_are_held_out_ones_and_few_of_them_are_trees() -> None:
    names = trust.problem_names()
    assert set(names) <= set(held_out_names()) and len(set(names)) == 20
    assert sum("/trees/" in name for name in names) == 4


@pytest.fixture(scope="module")
def explained() -> tuple[CalibratedAttribution, Tensor]:
    """A calibrated method, and rows that it has not seen."""
    x = torch.randn(130, 6, generator=torch.Generator().manual_seed(0))
    return CalibratedAttribution(MetaKernelShap(model)).calibrate(x[:90], alpha=0.2), x[90:]


@pytest.mark.parametrize("share", [None, 1.0, 0.1])
def test_rows_are_judged_as_attribute_returns_them(
    share: float | None, explained: tuple[CalibratedAttribution, Tensor]
) -> None:
    attr, x = explained
    call = trust._call(attr, {"inputs": x})
    truth = attr._labelled(call, {})
    rows = compared(call, truth)
    assert attr.calibration is not None
    tolerance = share and share * float(trust.judged(attr.calibration, rows, None)["bound"].median())
    found = trust.judged(attr.calibration, rows, tolerance)
    values, bounds = attr.attribute(x, tolerance=tolerance, return_error_bound=True)
    assert torch.allclose(found["bound"].float(), bounds, rtol=1e-4)
    errors = (values.double() - truth).norm(dim=1)
    assert torch.allclose(found["error"], torch.where(found["accepted"], errors, 0.0), atol=1e-6)
    assert torch.equal(found["accepted"], bounds > 0)


def test_evaluations_are_those_of_the_last_level_and_of_the_teacher() -> None:
    levels = torch.tensor([0, 2, 4])
    assert trust.evaluations(levels, n_levels=4, n_players=6, base=9, teacher=64.0) == pytest.approx(
        9 + (12 + 48 + 62) / 3 + 64 / 3
    )


def test_the_command_prints_tables_and_goes_on_where_it_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def small(name: str) -> tuple[Any, dict[str, Any], bool]:
        x = torch.randn(140, 6, generator=torch.Generator().manual_seed(1))
        return model, {"inputs": x, "baselines": torch.zeros_like(x), "target": torch.zeros(140, dtype=torch.long)}, True

    monkeypatch.setattr(trust, "explained_rows", small)
    monkeypatch.setattr(trust, "_CALIBRATE", 120)
    name, path = trust.problem_names()[0], tmp_path / "trust.jsonl"
    arguments = ["trust", "--models", name, "--output", str(path)]
    main(arguments)
    first, printed = path.read_text(), capsys.readouterr().out
    assert "20 rows of 1 held-out models" in printed and name in printed
    main(arguments)
    assert path.read_text() == first


def test_rows_of_a_held_out_model_are_its_whole_tables() -> None:
    name = "diabetes/residual/value/row"
    found, arguments, has_gradient = trust.explained_rows(name)
    assert found is load_held_out(name).model and has_gradient
    assert arguments["inputs"].shape == (420, 10)
    assert torch.equal(arguments["baselines"][1:], arguments["inputs"][:-1])
