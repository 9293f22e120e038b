"""The training of error estimates."""

from pathlib import Path
from typing import get_args

import pytest
import torch
from lightning import Trainer
from safetensors.torch import load_file

from captum_meta.nn import ErrorHead, ShapleyExplainer
from captum_meta.nn.error_head import PLAYER_NUMBERS, ROW_NUMBERS
from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule
from captum_meta.training.error_claims import CalibrateErrorHead, calibrated_margin, claims, in_batches
from captum_meta.training.error_estimate import EstimatedErrors, Lesson, lesson, loss
from captum_meta.training.error_tasks import EstimatedTaskFamilies, EstimatedTaskFamily, Models
from captum_meta.training.rough_games import Conjunctions, DecisionTrees


def test_the_loss_wants_the_right_order_and_nine_in_ten_below() -> None:
    errors = torch.tensor([[-4.0, -2.0, -1.0, 0.0]])
    known = torch.ones(1, 4, dtype=torch.bool)
    values = [loss(estimates, errors, known) for estimates in (errors, errors + 1, errors - 0.5, -errors)]
    assert values == sorted(values)
    spread = torch.arange(100.0).unsqueeze(0)
    level = [float(loss(torch.full_like(spread, one), spread, spread >= 0)) for one in range(100)]
    assert 88 <= level.index(min(level)) <= 91
    unknown = torch.tensor([[True, True, True, False]])
    assert torch.equal(*(loss(errors, torch.tensor([[-4.0, -2.0, -1.0, last]]), unknown) for last in (0.0, 9.0)))


def test_errors_are_those_of_the_answer_at_each_budget() -> None:
    torch.manual_seed(0)
    explainer = ShapleyExplainer(16, 1).double()
    for view in EstimatedTaskFamily("conjunctions", tasks_per_batch=2, rows=4, seed=5).variants(3):
        found = lesson(explainer, view)
        values, right = explainer(view.evidence).attributions, view.attributions
        errors = (values - right).square().sum(-1) / right.square().sum(-1)
        assert torch.allclose(found.errors[found.known], (errors + 1e-9).log()[found.known])
        assert found.known.any()


def test_a_fit_lowers_the_loss_leaves_the_explainer_and_writes_a_head(tmp_path: Path) -> None:
    torch.manual_seed(0)
    learner = EstimatedErrors(ShapleyExplainer(16, 1), width=8)
    before = {name: value.double().clone() for name, value in learner.explainer.state_dict().items()}
    kinds: tuple[Models, ...] = ("conjunctions", "trees")
    validation = {kind: EstimatedTaskFamily(kind, 2, 6, seed=7) for kind in kinds}
    family = EstimatedTaskFamily("conjunctions", 4, 12, seed=6)
    data = ExplanationTaskDataModule(family, validation, 6, 3, steps_per_epoch=60, augment=False)  # type: ignore[arg-type]
    module = MetaLearningModule(learner, learning_rate=1e-2, warmup_steps=5)
    losses: list[float] = []

    class Kept(CalibrateErrorHead):
        def on_train_batch_end(self, trainer: Trainer, *rest: object) -> None:
            losses.append(float(trainer.callback_metrics["train/loss"]))

    Trainer(
        max_epochs=1,
        accelerator="cpu",
        precision="64-true",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        limit_val_batches=0,
        callbacks=[Kept(str(tmp_path / "head"))],
    ).fit(module, data)
    assert sum(losses[-20:]) < 0.8 * sum(losses[:20])
    assert all(torch.equal(value, before[name]) for name, value in learner.explainer.state_dict().items())
    head = ErrorHead(8)
    head.load_state_dict(load_file(tmp_path / "head.safetensors"))
    assert head.margin == pytest.approx(float(learner.head.margin)) and head.row_deviation.ne(1).any()
    estimated = lesson(learner.explainer, family.variants(0)[0]).estimated(learner.head)
    assert estimated.isfinite().all()


def told(multiple: int, estimates: list[float], errors: list[float]) -> Lesson:
    """One whose estimates are its first number of the row."""
    rows = torch.zeros(1, len(errors), ROW_NUMBERS)
    rows[0, :, 0] = torch.tensor(estimates).log()
    mask = torch.ones(1, len(errors), 3, dtype=torch.bool)
    numbers = torch.zeros(1, len(errors), 3, PLAYER_NUMBERS)
    return Lesson(multiple, numbers, rows, mask, torch.tensor([errors]).log(), mask[..., 0])


class FirstNumber(ErrorHead):
    def forward(self, players: torch.Tensor, rows: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return rows[..., 0]


def test_a_row_claims_a_tolerance_once_at_the_first_budget_that_meets_it() -> None:
    batch = [told(2, [0.05, 0.5, 0.5], [0.2, 0.5, 0.5]), told(4, [0.01, 0.08, 0.5], [0.01, 0.02, 0.01])]
    assert claims([batch], FirstNumber(), 0.0, 0.1).tolist() == [False, True]
    assert claims([batch], FirstNumber(), 1.0, 0.1).tolist() == [True]


def test_the_margin_is_the_least_that_keeps_the_claims() -> None:
    estimates, errors = [0.09] * 100, [0.05] * 80 + [0.15] * 20
    again = told(4, [0.01] * 100, [0.001] * 100)
    margin = calibrated_margin([[[told(2, estimates, errors), again]]], FirstNumber())
    assert 0.0 < margin <= 0.2  # just so much that none claims at once


@pytest.mark.parametrize("kind", get_args(Models))
def test_each_kind_of_model_is_explained_exactly_at_growing_budgets(kind: Models) -> None:
    views = EstimatedTaskFamily(kind, 2, 4, seed=3).variants(0)
    evidence, right = views[0].evidence, views[0].attributions
    assert torch.allclose(right.sum(-1), evidence.total, atol=1e-4 * float(evidence.total.abs().max()))
    assert 4 <= right.shape[-1] <= 12 and bool(right.any())
    assert bool(evidence.measured[..., :3].any()) == (kind == "smooth" and bool(evidence.effects[..., :3].any()))
    assert evidence.coalitions is None
    for multiple, view in zip((4, 8, 16), views[1:], strict=False):
        coalitions = view.evidence.coalitions
        assert coalitions is not None and coalitions.members.shape[-2] == multiple * right.shape[-1]
        assert torch.equal(view.attributions, right)


def test_kinds_come_in_turn_and_budgets_of_the_same_rows_belong_together() -> None:
    kinds = get_args(Models)
    one = EstimatedTaskFamilies(2, 4, seed=3).variants(len(kinds) + 2)[0]
    assert torch.equal(one.attributions, EstimatedTaskFamily(kinds[2], 2, 4, seed=3).variants(1)[0].attributions)
    lessons = [told(multiple, [0.1], [0.1]) for multiple in (2, 4, 2, 2, 4, 8)]
    assert [[each.multiple for each in batch] for batch in in_batches(lessons)] == [[2, 4], [2], [2, 4, 8]]


def test_conjunctions_are_what_their_literals_say() -> None:
    generator = torch.Generator().manual_seed(4)
    for _ in range(20):
        model = Conjunctions(2, 5, generator)
        x = torch.randn(2, 30, 5, 1, generator=generator)
        values = model(x)
        for task in range(2):
            for row in range(30):
                wanted = 0.0
                for term in range(model.weights.shape[1]):
                    players = model.chosen[task, term].nonzero().flatten().tolist()
                    literals = [(x[task, row, p, 0] > 0) != (model.negative[task, term, p] > 0) for p in players]
                    if sum(map(bool, literals)) >= model.least[task, term]:
                        wanted += float(model.weights[task, term])
                assert abs(float(values[task, row]) - wanted) < 1e-4


def test_trees_are_followed_from_their_roots() -> None:
    generator = torch.Generator().manual_seed(5)
    for _ in range(5):
        model = DecisionTrees(2, 4, generator)
        x = torch.randn(2, 10, 4, 1, generator=generator)
        values = model(x)
        for task in range(2):
            for row in range(10):
                found = []
                for tree in range(model.leaves.shape[1]):
                    node = 0
                    for _ in range(model.depth):
                        feature = int(model.features[task, tree, node])
                        node = 2 * node + 1 + int(x[task, row, feature, 0] > model.thresholds[task, tree, node])
                    found.append(model.leaves[task, tree, node - 2**model.depth + 1])
                mean = torch.stack(found).mean()
                wanted = torch.sigmoid(model.gain * len(found) ** 0.5 * mean) if model.gain else mean
                assert torch.allclose(values[task, row], wanted, atol=1e-5)
