"""The drifting stream, and what the online benchmark makes of it."""

from dataclasses import replace

import pytest
import torch

from captum_meta.benchmark import online
from captum_meta.benchmark.drift import DAYS, Drift
from captum_meta.benchmark.online import BUDGETS, DEEP_KERNEL, HINDSIGHT, ONLINE, Stream, table
from captum_meta.learners import TransferGaussianProcess, load_learner
from captum_meta.learners.storage import shipped_explainer
from captum_meta.tasks import ModelStream
from captum_meta.training import stream_errors


def test_a_day_comes_again_and_the_family_drifts() -> None:
    (first, data), (again, _), (last, later) = Drift(100)(0), Drift(100)(0), Drift(100)(DAYS - 1)
    assert torch.equal(first(data.inputs), again(data.inputs))
    widths = [model.layers[0].out_features for model in (first, last)]
    assert widths[0] == 32 and widths[1] >= 192
    assert (first.strangeness, last.strangeness) == (0, 1) and last.sharpness > first.sharpness
    assert later.inputs.shape[1] == data.inputs.shape[1] + 1  # type: ignore[union-attr]
    spread = [torch.linalg.eigvalsh(torch.cov(rows.inputs.T))[-1] / rows.inputs.shape[1] for rows in (data, later)]  # type: ignore[union-attr]
    assert spread[1] > 1.3 * spread[0]
    assert not torch.equal(Drift(101)(0)[1].inputs[0, :7], data.inputs[0, :7])  # type: ignore[index]


def test_without_coalitions_evidence_is_what_gradients_alone_measure() -> None:
    rich, poor = (ModelStream(Drift(100), 1, rows=6, coalitions=n).variants(0)[0] for n in (2, 0))
    masked = replace(rich, evidence=rich.evidence.gradients_alone())
    assert torch.equal(masked.evidence.measured, poor.evidence.measured)
    assert torch.allclose(masked.evidence.effects, poor.evidence.effects, atol=1e-6)


def test_all_methods_on_a_short_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {
        "_HINDSIGHT_STEPS": 1,
        "_SCRATCH_STEPS": 1,
        "LATE": 1,
    }.items():
        monkeypatch.setattr(online, name, value)
    tasks = online.rounds(100, days=2)
    found = {result.method: result for result in online.compare(100, "2M", tasks, online.METHODS)}
    assert [len(found[method].errors) for method in online.METHODS] == [2, 2, 2, 1, 2]
    assert found[DEEP_KERNEL].errors == stream_errors(load_learner("deep-kernel"), tasks)
    assert found[ONLINE].errors[0] == pytest.approx(stream_errors(TransferGaussianProcess(shipped_explainer()), tasks)[0])


def test_the_table_has_late_means_and_regret() -> None:
    def made(method: str, value: float) -> list[Stream]:
        return [Stream(0, budget, method, [9.0] * 40 + [value] * 20) for budget in BUDGETS]

    shown = table(made(ONLINE, 1.0) + made(HINDSIGHT, 0.5))
    assert shown.row_count == 4
    assert next(iter(shown.columns[3].cells)) == "1.0000" and next(iter(shown.columns[-1].cells)) == "10.00"
