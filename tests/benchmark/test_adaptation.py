"""The adaptation benchmark on one small held-out model."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captum_meta.benchmark import adaptation
from captum_meta.benchmark.adaptation import LITERAL, OTHER, SAME, SHIFTED, FineTuning, learners, run, table
from captum_meta.learners import load_learner
from captum_meta.tasks import SyntheticTaskFamily

PROBLEM = "california/mlp/value/zero"


def test_every_setting_is_measured_once_and_kept(tmp_path: Path) -> None:
    output, references = tmp_path / "results.jsonl", tmp_path / "references"
    results = run([PROBLEM], learners(["zero-shot", LITERAL]), output, references)
    places = {(r.learner, r.rows, r.budget, r.support) for r in results}
    assert len(places) == len(results) == 2 * 2 * 5
    assert {r.support for r in results} == {SAME, SHIFTED, OTHER}
    for result in results:
        assert result.learner != "zero-shot" or result.error == pytest.approx(result.before)
    again = run([PROBLEM], learners(["zero-shot", LITERAL]), output, references)
    assert again == results and len(output.read_text().splitlines()) == len(results)
    assert table(results, "2M").row_count == 2 * 5


def test_halves_do_not_overlap() -> None:
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=24, seed=5)[6][0]
    support, query = rows[:16], rows[16:]
    low, high = adaptation._halves(support, query)
    inputs, asked = support.evidence.inputs[..., 0], query.evidence.inputs[..., 0]  # type: ignore[index]
    centre = inputs.mean(0)
    direction = torch.linalg.svd(inputs - centre, full_matrices=False).Vh[0]
    assert ((inputs[low] - centre) @ direction).max() <= ((asked[high] - centre) @ direction).min()


def test_fine_tuning_moves_towards_the_support_rows() -> None:
    explained = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=12, seed=5)[6][0]
    explained = replace(explained, evidence=replace(explained.evidence, coalitions=None))
    tuning = FineTuning(load_learner("zero-shot"))
    before = tuning.explainer(explained.evidence).attributions - explained.attributions
    after = tuning.predict(tuning.adapt(explained), explained.evidence) - explained.attributions
    assert after.square().sum() < before.square().sum()


def test_unknown_learners_are_named() -> None:
    with pytest.raises(ValueError, match="no learners"):
        learners(["nonsense"])
