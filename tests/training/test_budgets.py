"""Errors of validation by budget."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from captum_meta.learners import ZeroShot
from captum_meta.losses import relative_errors
from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule
from captum_meta.training.budgets import at_budget
from captum_meta.types import Explanations, ExplanationTask

FAMILY = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=6, seed=5)


def many_coalitions(rows: Explanations) -> bool:
    coalitions, gradients = rows.evidence.coalitions, rows.evidence.measured[..., :3].any()
    return coalitions is not None and bool(gradients) and coalitions.members.shape[-2] > 4 * rows.attributions.shape[-1]


def test_what_is_known_at_a_budget() -> None:
    rows = next(rows for index in range(30) if many_coalitions(rows := FAMILY[index]))
    n_players = rows.attributions.shape[-1]
    alone, border, more = (at_budget(rows, budget) for budget in (0, 2, 4))
    assert alone is not None and border is not None and more is not None
    assert not alone.evidence.measured[..., 3:].any() and torch.equal(
        alone.evidence.effects[..., :3], rows.evidence.effects[..., :3]
    )
    assert border.evidence.coalitions is None and torch.equal(border.evidence.effects, rows.evidence.effects)
    assert more.evidence.coalitions is not None and more.evidence.coalitions.members.shape[-2] == 4 * n_players
    paths = SyntheticTaskFamily("path", tasks_per_batch=1, rows=2, seed=5).variants(5)
    assert [at_budget(view, 5) is not None for view in paths].count(True) == 1
    for wrong in (1, -2):
        with pytest.raises(ValueError, match="A budget is 0 or at least 2"):
            at_budget(rows, wrong)


def test_errors_are_logged_for_each_budget(tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = MetaLearningModule(ZeroShot(ShapleyExplainer(8, 1)))
    data = ExplanationTaskDataModule(FAMILY, FAMILY, 1, 2, 1, 0, validation_budgets=[0, 2, 8])
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, default_root_dir=tmp_path
    )
    logged = trainer.validate(module, data, verbose=False)[0]
    means = [logged[f"validation/mean error/k=0/budget={budget}"] for budget in (0, 2, 8)]
    assert len(set(means)) == 3
    for budget, mean in zip((0, 2, 8), means, strict=True):
        errors = []
        for index in range(2):
            known = at_budget(FAMILY[index], budget)
            assert known is not None
            task = ExplanationTask(known[:, :0], known)
            predicted = module.learner.predict(None, task.query.evidence)
            errors.append(relative_errors(predicted, task.query.attributions).detach())
        assert mean == pytest.approx(float(torch.cat(errors).mean()), rel=1e-4)
