"""The weights of a path's gradients are trained, and written beside those of the shipped explainer."""

from pathlib import Path

import pytest
import torch

from captum_meta.learners import load_learner
from captum_meta.nn import PathExplainer
from captum_meta.training import path_rows


def test_a_short_run_is_saved_and_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"_BATCHES": 2, "_TESTED": 1, "_STEPS": 3}.items():
        monkeypatch.setattr(path_rows, name, value)
    monkeypatch.setattr(path_rows.fit, "__defaults__", (3, 32, 2))
    path_rows.main([str(tmp_path / "learner")])
    learner = load_learner(tmp_path / "learner", "path")
    shipped = load_learner("zero-shot", "path").explainer
    assert isinstance(learner.explainer, PathExplainer) and learner.explainer.rows is not None
    for name, value in shipped.state_dict().items():
        assert name.startswith("rows.") or torch.equal(value, learner.explainer.state_dict()[name])


def test_steps_lower_the_error() -> None:
    taught = path_rows.tasks(1, 3)
    trained, fresh = path_rows.fit(taught, steps=60), path_rows.fit(taught, steps=0)
    before, after = (path_rows.errors(some, taught, place=2).log().mean() for some in (fresh, trained))
    assert after < before
