"""The comparison of optimizers on one small held-out model, and its sums by hand."""

import math
from pathlib import Path

import pytest
import torch

from captum_meta.benchmark import optimizers
from captum_meta.benchmark.optimizers import LEARNED, Curve, errors, log_errors, means, run, table, tune, verdict, walk
from captum_meta.learners import LearnedOptimizer
from captum_meta.learners.storage import shipped_explainer
from captum_meta.tasks import SyntheticTaskFamily

PROBLEM = "california/mlp/value/zero"


@pytest.fixture(scope="module")
def learner() -> LearnedOptimizer:
    return LearnedOptimizer(shipped_explainer(), ("head.*",), steps=2).eval().requires_grad_(False)


def test_every_optimizer_is_measured_once_and_kept(learner: LearnedOptimizer, tmp_path: Path) -> None:
    output, rates = tmp_path / "results.jsonl", {"SGD": 0.05, "Adam": 0.001}
    curves = run(learner, [PROBLEM], rates, output, tmp_path)
    assert {(c.budget, c.optimizer) for c in curves} == {(b, o) for b in ("none", "2M") for o in (LEARNED, "SGD", "Adam")}
    assert len(curves) == 6
    for curve in curves:
        assert len(curve.support) == len(curve.query) == optimizers.STRETCH * learner.steps + 1
        same = next(c for c in curves if c.budget == curve.budget)
        assert curve.query[0] == same.query[0] and curve.query[-1] != curve.query[0]
    assert run(learner, [PROBLEM], rates, output, tmp_path) == curves
    assert table(curves, "2M", [0, 10]).row_count == 6


def test_the_rate_with_the_least_error_is_chosen(
    learner: LearnedOptimizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimizers, "RATES", {"SGD": (0.05, 100.0)})
    monkeypatch.setattr(optimizers, "HAND_STEPS", 1)
    monkeypatch.setattr(optimizers, "_TUNING", SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=20, seed=5))
    output = tmp_path / "rates.jsonl"
    assert tune(learner, output, batches=1) == {"SGD": 0.05}
    lines = output.read_text()
    assert tune(learner, output, batches=1) == {"SGD": 0.05} and output.read_text() == lines


def test_gradients_alone_are_what_is_left_of_the_evidence_without_coalitions() -> None:
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=4, seed=5)[6]
    plain = optimizers.with_budget(rows, "none").evidence
    assert plain.coalitions is None and not plain.effects[..., 3:].any() and not plain.measured[..., 3:].any()
    assert torch.equal(plain.effects[..., :3], rows.evidence.effects[..., :3])
    assert optimizers.with_budget(rows, "2M").evidence.measured.all()


def test_the_start_is_the_zero_shot_explainer(learner: LearnedOptimizer) -> None:
    rows = optimizers.with_budget(SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=6, seed=5)[6], "2M")
    start = walk(learner, learner.rule, rows[:, :4], 1)[0]
    predicted = learner.explainer(rows.evidence).attributions
    expected = (predicted - rows.attributions).square().sum((-2, -1)) / rows.attributions.square().sum((-2, -1))
    assert torch.allclose(errors(learner, start, rows), expected, rtol=1e-4)


def test_means_and_the_verdict_by_hand() -> None:
    falling = [0.4, 0.2, 0.1, 0.1]
    curves = [
        Curve(problem, "mlp", "2M", optimizer, values, values)
        for problem in ("a", "b")
        for optimizer, values in ((LEARNED, falling), ("SGD", [0.4, 0.3, 0.2, 0.3]), ("Adam", [0.4, 0.3, 0.05, 0.05]))
    ]
    assert means(curves, LEARNED)[1] == pytest.approx(math.log(0.2005))
    told = verdict(curves, "2M", horizon=2)
    assert "SGD's best error, 0.2005 after 2 steps: after 1" in told and "never" in told and "on 0 of 2 models" in told
    assert log_errors(torch.tensor([math.nan, math.inf])).tolist() == pytest.approx([math.log(1e4)] * 2)
