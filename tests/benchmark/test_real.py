"""Models that others built: those whose packages are there can be explained, the others are named."""

import pytest
import torch

from captum_meta.benchmark import real, real_models
from captum_meta.benchmark.real_models import REAL, RealModel
from tests.benchmark.conftest import small_problem


def test_errors_are_shown_for_what_is_installed_and_what_is_not_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(REAL, "small", RealModel(lambda: small_problem(5, n_rows=2), "torch"))
    monkeypatch.setitem(REAL, "absent", RealModel(lambda: small_problem(5), "no_such_package"))
    real.main(["--models", "small", "absent"])
    shown = capsys.readouterr().out
    assert "Left out: absent. They need the packages no_such_package." in shown
    lines = [line for line in shown.splitlines() if "small" in line and "│" in line]
    assert len(lines) == 2
    shapley, path = ([float(cell) for cell in line.split("│")[3:-1]] for line in lines)
    assert len(shapley) == 6 and shapley[3] <= shapley[0] < 0.5
    assert len(path) == 4 and max(path) < 0.5


@pytest.mark.parametrize("name", ["rtdl PLE, diabetes", "LightGBM, breast cancer", "silero-vad, 10 windows"])
def test_real_models_answer_each_row_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if not REAL[name].installed:
        pytest.skip(f"{REAL[name].package} is not installed")
    monkeypatch.setattr(real_models, "_STEPS", 5)
    state = torch.get_rng_state()
    problem = REAL[name].make()
    assert torch.equal(state, torch.get_rng_state())
    inputs = problem.arguments["inputs"]
    whole = problem.model(inputs)
    assert torch.allclose(problem.model(inputs[2:4]), whole[2:4], atol=1e-5)
    assert problem.n_players == {"rtdl PLE, diabetes": 10, "LightGBM, breast cancer": 30, "silero-vad, 10 windows": 10}[name]
