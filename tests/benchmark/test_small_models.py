"""The ridge on three gradients is the one that is written out, and the comparison counts what it says."""

import pytest
import torch

import captum_meta.benchmark.small_models
from captum_meta.benchmark.small_models import RIDGE, ThreeGradients, errors, small_models, table
from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily


def test_three_weights_are_ridge_regression_written_out() -> None:
    torch.manual_seed(0)
    learner = ThreeGradients(ShapleyExplainer(8, 1)).double().eval()
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=10, seed=5)[6].to(dtype=torch.float64)
    rows = rows.without_coalitions()
    found = learner.adapt(rows).weights
    start = learner.explainer(rows.evidence).attributions
    for task in range(2):
        x = rows.evidence.effects[task, ..., :3].reshape(-1, 3)
        y = (rows.attributions - start)[task].reshape(-1)
        strength = 1e-2 * float((x.T @ x).diagonal().mean())
        right = torch.linalg.solve(x.T @ x + strength * torch.eye(3), x.T @ y)
        assert torch.allclose(found[task], right, rtol=1e-6)
    predicted = learner.predict(learner.adapt(rows), rows.evidence)
    assert torch.allclose(predicted.sum(-1), rows.evidence.total, rtol=1e-6)


def test_errors_of_a_model_and_their_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(captum_meta.benchmark.small_models, "_PLAYERS", (6,))  # two models of ten
    small = small_models()[0]
    assert small.exact.shape == small.inputs.shape
    total = small.model(small.inputs) - small.model(torch.zeros_like(small.inputs))
    assert torch.allclose(small.exact.sum(1), total.gather(1, small.target.unsqueeze(1)).squeeze(1), atol=1e-5)
    learner = ThreeGradients(ShapleyExplainer(8, 1)).eval().requires_grad_(False)
    before, after = errors(learner, small, 0)
    assert 0 < after < before
    shown = table({"half": [(0.2, 0.1), (0.1, 0.2)], RIDGE: [(0.2, 0.2), (0.1, 0.1)]}, "title")
    cells = [list(column.cells) for column in shown.columns]
    assert [column[0] for column in cells] == ["half", "0.1414", "0.1414", "1.00", "1 of 2", "1.00"]
