"""Steps whose loss or gradient is not finite are left out, counted and logged, and several in a row end the run."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Trainer
from short_run import data, quiet
from torch import Tensor
from torch.utils.data import DataLoader

from captum_meta.learners import MAML, MatchingNetwork, MetaLearner, Ridge, ZeroShot
from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule
from captum_meta.training.steps import split
from captum_meta.types import Explanations, ExplanationTask

BROKEN = {
    "NaN loss": lambda loss, first: loss * torch.nan,
    "infinite loss with a finite gradient": lambda loss, first: loss + torch.inf,
    "finite loss with a gradient of NaN": lambda loss, first: loss + (first.sum() * 0).sqrt() * 0,
    "finite loss with an infinite gradient": lambda loss, first: loss + (first * 0).sqrt().sum(),
}


class Breaking(ZeroShot):
    """Breaks in the steps of the numbers ``when``."""

    def __init__(self, how: str, when: set[int]) -> None:
        torch.manual_seed(0)
        super().__init__(ShapleyExplainer(8, 1))
        self.how, self.when, self.number = how, when, 0
        self.seen: list[list[Tensor]] = []

    def begin_step(self, number: int) -> None:
        self.number = number
        self.seen.append([parameter.detach().clone() for parameter in self.parameters()])

    def loss(self, tasks: ExplanationTask) -> Tensor:
        loss = super().loss(tasks)
        return BROKEN[self.how](loss, next(self.explainer.parameters())) if self.number in self.when else loss


def run(learner: Breaking, folder: Path, **arguments: object) -> Trainer:
    trainer = quiet(folder, enable_checkpointing=False, **arguments)
    trainer.fit(MetaLearningModule(learner, warmup_steps=1, schedule="constant"), data(folder, steps_per_epoch=12))
    return trainer


@pytest.mark.parametrize("how", BROKEN)
@pytest.mark.parametrize("settings", [{}, {"gradient_clip_val": 1.0}], ids=["plain", "clipped"])
def test_broken_steps_are_left_out_and_counted(how: str, settings: dict[str, object], tmp_path: Path) -> None:
    learner = Breaking(how, {2, 3, 7})
    with pytest.warns(UserWarning, match="Step 2 is left out: the gradient of explainer"):
        trainer = run(learner, tmp_path, **settings)
    assert trainer.global_step == 12
    assert trainer.logged_metrics["train/steps left out"] == 3
    assert all(parameter.isfinite().all() for parameter in learner.parameters())
    changed = [
        any(not torch.equal(one, other) for one, other in zip(before, after, strict=True))
        for before, after in zip(learner.seen[:-1], learner.seen[1:], strict=True)
    ]
    assert [number for number, moved in enumerate(changed) if not moved] == [2, 3, 7]


def test_steps_that_are_fine_are_what_they_were(tmp_path: Path) -> None:
    learner = Breaking("NaN loss", {})  # type: ignore[arg-type]
    trainer = run(learner, tmp_path)
    assert trainer.logged_metrics["train/steps left out"] == 0


@pytest.mark.parametrize("how", BROKEN)
def test_several_in_a_row_end_the_run(how: str, tmp_path: Path) -> None:
    learner = Breaking(how, set(range(3, 99)))
    with pytest.raises(RuntimeError, match=r"5 steps in a row, up to step 7, .*Lower the learning rate"), pytest.warns():
        run(learner, tmp_path)
    assert all(torch.equal(one, other) for one, other in zip(learner.seen[3], learner.parameters(), strict=True))


def test_learners_that_adapt_need_support_rows(tmp_path: Path) -> None:
    module = MetaLearningModule(MAML(ShapleyExplainer(8, 1), steps=1))
    with pytest.raises(ValueError, match=r"MAML learns from explained rows.*--data.support_rows 16"):
        quiet(tmp_path, enable_checkpointing=False).fit(module, data(tmp_path, support_rows=0))


@pytest.mark.parametrize("learner", [MAML, Ridge, MatchingNetwork, ZeroShot])
@pytest.mark.parametrize("part", ["support", "query"])
def test_tasks_whose_labels_are_no_numbers_are_left_out(part: str, learner: type[MetaLearner], tmp_path: Path) -> None:
    task = split(SyntheticTaskFamily(tasks_per_batch=2, rows=8)[0], 4)
    rows = getattr(task, part)
    broken = replace(task, **{part: replace(rows, attributions=rows.attributions * torch.nan)})
    module = MetaLearningModule(learner(ShapleyExplainer(8, 1)))
    trainer = quiet(tmp_path, enable_checkpointing=False, log_every_n_steps=1)
    with pytest.warns(UserWarning, match="Step 1 is left out"):
        trainer.fit(module, DataLoader([task, broken, task], batch_size=None))
    assert trainer.callback_metrics["train/steps left out"] == 1
    assert all(parameter.isfinite().all() for parameter in module.parameters())


@pytest.mark.parametrize("which", ["support_rows", "validation_support_rows"])
def test_learners_that_adapt_need_query_rows(which: str, tmp_path: Path) -> None:
    module = MetaLearningModule(MAML(ShapleyExplainer(8, 1), steps=1))
    wanted = {"support_rows": 2, which: 4 if which == "support_rows" else [4]}
    own = ExplanationTaskDataModule(*[SyntheticTaskFamily(tasks_per_batch=1, rows=4)] * 2, 1, 1, 2, **wanted)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"support_rows=4 leave no query of 4 rows"):
        quiet(tmp_path, enable_checkpointing=False).fit(module, own)


def test_accumulated_gradients_are_left_out_together(tmp_path: Path) -> None:
    learner = Breaking("NaN loss", {1})
    with pytest.warns(UserWarning, match="Step 1 is left out"):
        trainer = run(learner, tmp_path, accumulate_grad_batches=3)
    assert trainer.logged_metrics["train/steps left out"] == 1
    assert all(parameter.isfinite().all() for parameter in learner.parameters())


@pytest.fixture(scope="module")
def exact() -> Explanations:
    """Rows of so few players that all coalitions are known, so that no parameter acts on the loss."""
    family, explainer = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=6, seed=5), ShapleyExplainer(8, 1)
    views = (view for index in range(60) for view in family.variants(index))
    return next(view for view in views if not explainer(view.evidence).attributions.requires_grad)


@pytest.mark.parametrize("adapts", [False, True])
@pytest.mark.parametrize("settings", [{}, {"shares": 2}, {"task_chunk_size": 1}])
def test_tasks_that_are_exact_already_are_a_step_without_a_gradient(
    adapts: bool, settings: dict[str, int], exact: Explanations
) -> None:
    learner = MAML(ShapleyExplainer(8, 1), steps=2) if adapts else ZeroShot(ShapleyExplainer(8, 1))
    before = [parameter.clone() for parameter in learner.parameters()]
    module = MetaLearningModule(learner, weight_decay=0.0, **settings)  # type: ignore[arg-type]
    Trainer(max_steps=2, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu").fit(
        module, DataLoader([split(exact, 2)] * 2, batch_size=None)
    )
    assert all(torch.equal(one, other) for one, other in zip(before, learner.parameters(), strict=True))
