"""Learning a descent: what is measured of synthetic models, and that following the estimates lowers the error."""

from pathlib import Path

import pytest
import torch
from lightning import Trainer

from captum_meta.learners import FeatureMAML, KernelRidge, Stacking, load_learner
from captum_meta.nn import LearnedDescent, ShapleyExplainer
from captum_meta.optim.evolution import evolved
from captum_meta.tasks import DistillationTaskFamily, SyntheticTaskFamily
from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule
from captum_meta.training.data import split
from captum_meta.training.save import SaveLearner
from captum_meta.types import ExplanationTask

TRAINED = True
FAMILY = DistillationTaskFamily(tasks_per_batch=2, rows=12, support=8, seed=31)


@pytest.fixture(scope="module")
def taught() -> list[ExplanationTask]:
    return [split(FAMILY.variants(index)[0], 8) for index in range(4)]


def network() -> Stacking:
    torch.manual_seed(0)
    base = FeatureMAML(ShapleyExplainer(16, 1)).requires_grad_(False)
    return Stacking(base, LearnedDescent(10))


def mean_error(learner: Stacking, taught: list[ExplanationTask]) -> float:
    return float(torch.cat([learner.log_errors(task) for task in taught]).mean())


def test_coalitions_end_with_all_players_and_none_and_worths_follow_from_gradients(taught: list[ExplanationTask]) -> None:
    for task in taught:
        evidence = task.support.evidence
        coalitions = evidence.coalitions
        assert coalitions is not None and coalitions.gradients is not None and evidence.elements is not None
        assert coalitions.members[..., -2, :].all() and not coalitions.members[..., -1, :].any()
        assert torch.allclose(coalitions.worths[..., -2], evidence.total, rtol=1e-3, atol=1e-4)
        delta = evidence.elements[..., 0] - evidence.elements[..., 1]
        along = (coalitions.gradients[..., -2, :, :] * delta).sum(-1)
        assert torch.allclose(along, evidence.effects[..., 0], rtol=1e-3, atol=1e-4)


def test_of_query_rows_no_coalition_is_told(taught: list[ExplanationTask]) -> None:
    explainer = ShapleyExplainer(16, 1)
    for task in taught:
        evidence = task.query.evidence
        assert evidence.coalitions is not None and not evidence.coalitions.measured.any()
        plain = explainer(evidence.without_coalitions()).attributions
        assert torch.allclose(explainer(evidence).attributions, plain, rtol=1e-4, atol=1e-6)


def test_families_of_distillation_have_support_rows_and_shapley_values() -> None:
    with pytest.raises(ValueError, match="support=13: pass how many of the 12 rows"):
        DistillationTaskFamily(rows=12, support=13)
    with pytest.raises(ValueError, match="explains by Shapley values"):
        DistillationTaskFamily("path")
    assert FAMILY.variants(7)[0].evidence.coalitions.gradients is None  # type: ignore[union-attr]


def test_the_estimated_gradient_is_that_of_a_linear_loss_and_parameters_are_left_as_they_were() -> None:
    torch.manual_seed(0)
    theta = [torch.randn(3, requires_grad=True), torch.randn(2, requires_grad=True)]
    slopes, before = [torch.randn(3), torch.randn(2)], [value.detach().clone() for value in theta]
    loss = evolved(
        lambda: 0.1 * sum((v * s).sum() for v, s in zip(theta, slopes, strict=True)).unsqueeze(0), theta, pairs=4000
    )
    loss.backward()
    for value, slope, old in zip(theta, slopes, before, strict=True):
        assert value.grad is not None and torch.allclose(value.grad, 0.1 * slope, atol=0.02)
        assert torch.equal(value, old)

    def broken() -> torch.Tensor:
        raise ArithmeticError

    with pytest.raises(ArithmeticError):
        evolved(broken, theta)
    assert all(torch.equal(value, old) for value, old in zip(theta, before, strict=True))


@pytest.mark.slow
def test_a_fit_lowers_the_error_leaves_the_base_and_its_file_loads(taught: list[ExplanationTask], tmp_path: Path) -> None:
    learner = network()
    before, base = mean_error(learner, taught), [value.clone() for value in learner.base.parameters()]
    data = ExplanationTaskDataModule(FAMILY, FAMILY, 4, 1, steps_per_epoch=12, support_rows=8, augment=False)
    module = MetaLearningModule(learner, learning_rate=0.06, weight_decay=0.0, warmup_steps=1, schedule="constant")
    Trainer(
        max_epochs=1,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        callbacks=[SaveLearner(str(tmp_path / "mine"))],
    ).fit(module, data)
    assert mean_error(learner, taught) < before - 0.05
    assert all(torch.equal(one, other) for one, other in zip(learner.base.parameters(), base, strict=True))
    loaded = load_learner(tmp_path / "mine")
    assert isinstance(loaded, Stacking) and mean_error(loaded, taught) == pytest.approx(mean_error(learner, taught))


def test_networks_cannot_learn_of_tasks_without_coalitions() -> None:
    explained = SyntheticTaskFamily(tasks_per_batch=1, rows=6)[0]
    with pytest.raises(ValueError, match=r"take captum_meta.tasks.DistillationTaskFamily"):
        network().loss(split(explained, 4))
    assert Stacking(KernelRidge(ShapleyExplainer(16, 1), features=8)).loss(split(explained, 4)).isfinite()


def test_steps_without_augmentation_see_tasks_as_they_were_made() -> None:
    data = ExplanationTaskDataModule(FAMILY, FAMILY, 1, 1, steps_per_epoch=2, support_rows=8, augment=False)
    data.setup("fit")
    for task in data.train_dataloader():
        assert torch.equal(task.support.attributions, FAMILY.variants(0)[0].attributions[:, :8])
        assert task.support.evidence.coalitions is not None
