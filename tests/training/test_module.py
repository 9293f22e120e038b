"""What the Lightning module logs, keeps and gives back."""

import warnings
from pathlib import Path

import pytest
import small_run
import torch
from lightning.pytorch.tuner import Tuner
from short_run import data, quiet
from torch import Tensor
from torch.utils.data import DataLoader

from captum_meta.attr import MetaKernelShap
from captum_meta.learners import MAML, Ridge, ZeroShot
from captum_meta.metrics import AttributionError
from captum_meta.nn import ShapleyExplainer
from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule, learner_from_checkpoint
from captum_meta.training.steps import Steps
from captum_meta.types import ExplanationTask


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("trained")
    torch.manual_seed(0)
    trainer = quiet(folder)
    trainer.fit(MetaLearningModule(Ridge(ShapleyExplainer(8, 1), confidence=2.0), warmup_steps=1), data(folder))
    trainer.save_checkpoint(folder / "end.ckpt")
    return folder


def test_a_checkpoint_holds_no_model_and_unpickles_nothing(trained: Path) -> None:
    checkpoint = torch.load(trained / "end.ckpt", weights_only=True)
    assert all(name.startswith("learner.explainer.") for name in checkpoint["state_dict"])
    assert checkpoint["hyper_parameters"]["warmup_steps"] == 1 and "learner" not in checkpoint["hyper_parameters"]
    assert sum(len(group["params"]) for state in checkpoint["optimizer_states"] for group in state["param_groups"]) == len(
        checkpoint["state_dict"]
    )


def test_a_checkpoint_becomes_a_learner_and_a_front_end(trained: Path) -> None:
    learner = learner_from_checkpoint(trained / "end.ckpt")
    assert isinstance(learner, Ridge) and learner.confidence == 2.0 and not learner.training
    state = torch.load(trained / "end.ckpt", weights_only=True)["state_dict"]
    assert all(torch.equal(value, state[f"learner.{name}"]) for name, value in learner.state_dict().items())
    model = small_run.AnyWidth(7).eval()
    method = MetaKernelShap(model, learner=learner).adapt(small_run.rows(5), target=1)
    assert method.attribute(small_run.rows(5, 3, 1), target=1).shape == (3, 5)


def test_files_that_are_no_checkpoints_say_so(tmp_path: Path) -> None:
    torch.save({"state_dict": {}}, tmp_path / "another.ckpt")
    torch.save([1], tmp_path / "list.ckpt")
    torch.save({"made by": Path("here")}, tmp_path / "pickled.ckpt")
    (tmp_path / "text.ckpt").write_text("hello")
    (tmp_path / "empty.ckpt").write_text("")
    for name in ("another", "list"):
        with pytest.raises(ValueError, match=rf"{name}.ckpt is no checkpoint of a MetaLearningModule"):
            learner_from_checkpoint(tmp_path / f"{name}.ckpt")
    for name in ("pickled", "text", "empty"):
        with pytest.raises(ValueError, match=rf"{name}.ckpt is no checkpoint that can be read"):
            learner_from_checkpoint(tmp_path / f"{name}.ckpt")


def test_measuring_works_in_inference_mode_and_by_number_of_support_rows(trained: Path, tmp_path: Path) -> None:
    module = MetaLearningModule.load_from_checkpoint(trained / "end.ckpt")
    tasks = data(tmp_path, validation_support_rows=[0, 2, 4])
    results = quiet(tmp_path).validate(module, tasks, verbose=False)[0]
    assert results.keys() == quiet(tmp_path).test(module, tasks, verbose=False)[0].keys() ^ {
        key.replace("validation", stage) for key in results for stage in ("validation", "test")
    }
    predictions = quiet(tmp_path).predict(module, tasks)
    for k, loader, predicted in zip((0, 2, 4), tasks.val_dataloader(), predictions, strict=True):
        errors = []
        for task, answer in zip(loader, predicted, strict=True):
            assert task.support.attributions.shape[1] == k and task.query.attributions.shape[1] == 4
            error = AttributionError()
            error.update(answer[0], task.query.attributions[0])
            errors.append(error.compute())
        assert results[f"validation/mean error/held out/k={k}"] == pytest.approx(float(torch.stack(errors).mean()), rel=1e-4)
        assert results[f"validation/median error/held out/k={k}"] == pytest.approx(
            float(torch.stack(errors).median()), rel=1e-4
        )


def test_frozen_learners_are_trained_on(tmp_path: Path) -> None:
    learner = ZeroShot(ShapleyExplainer(8, 1)).requires_grad_(False).eval()
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    quiet(tmp_path, enable_checkpointing=False).fit(MetaLearningModule(learner, warmup_steps=1), data(tmp_path))
    assert any(not torch.equal(value, before[name]) for name, value in learner.state_dict().items())


class Dice(ZeroShot):
    """Its loss is random."""

    def __init__(self, explainer: ShapleyExplainer) -> None:
        super().__init__(explainer)
        self.thrown: list[float] = []

    def loss(self, tasks: ExplanationTask) -> Tensor:
        noise = torch.rand(())
        self.thrown.append(float(noise))
        return super().loss(tasks) * noise


def test_random_numbers_follow_from_seed_and_step(tmp_path: Path) -> None:
    thrown = []
    for start, seed in ((1, 0), (2, 0), (1, 5)):
        torch.manual_seed(start)
        learner = Dice(ShapleyExplainer(8, 1))
        module = MetaLearningModule(learner, seed=seed)
        quiet(tmp_path, max_epochs=2, enable_checkpointing=False, num_sanity_val_steps=0).fit(module, data(tmp_path))
        thrown.append(learner.thrown)
    assert len(set(thrown[0])) == 6
    assert thrown[0] == thrown[1] != thrown[2]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
@pytest.mark.parametrize("adapts", [False, True])
def test_precisions_of_all_numbers(precision: str, adapts: bool, tmp_path: Path) -> None:
    learner = MAML(ShapleyExplainer(8, 1), steps=1) if adapts else ZeroShot(ShapleyExplainer(8, 1))
    trainer = quiet(tmp_path, enable_checkpointing=False, precision=precision)
    trainer.fit(MetaLearningModule(learner), data(tmp_path))
    expected = torch.float64 if precision == "64-true" else torch.bfloat16
    assert all(parameter.isfinite().all() and parameter.dtype == expected for parameter in learner.parameters())
    assert trainer.callback_metrics["train/loss"].isfinite() and trainer.callback_metrics["validation/error"] > 0


def test_double_precision_by_the_trainer_is_that_of_the_module(tmp_path: Path) -> None:
    weights = []
    for settings in ({"precision": "64-true"}, {}):
        torch.manual_seed(0)
        module = MetaLearningModule(ZeroShot(ShapleyExplainer(8, 1)))
        trainer = quiet(tmp_path, enable_checkpointing=False, **settings)
        trainer.fit(module if settings else module.double(), data(tmp_path))
        weights.append([parameter.detach() for parameter in module.parameters()])
    assert all(torch.allclose(one, other, rtol=1e-6, atol=1e-8) for one, other in zip(*weights, strict=True))


def test_a_precision_that_cannot_be_says_what_can(tmp_path: Path) -> None:
    module = MetaLearningModule(ZeroShot(ShapleyExplainer(8, 1)))
    with pytest.raises(ValueError, match=r"precision='16-true'\) cannot train learners: pass one of .*'64-true'"):
        quiet(tmp_path, enable_checkpointing=False, precision="16-true").fit(module, data(tmp_path))


def test_overfit_batches_are_the_same_in_every_epoch(tmp_path: Path) -> None:
    seen: list[float] = []

    class Seeing(MetaLearningModule):
        def training_step(self, batch: ExplanationTask, batch_idx: int) -> Tensor | None:
            seen.append(float(batch.query.attributions.sum()))
            return super().training_step(batch, batch_idx)

    trainer = quiet(tmp_path, overfit_batches=2, max_epochs=3, enable_checkpointing=False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="You requested to overfit")
        trainer.fit(Seeing(ZeroShot(ShapleyExplainer(8, 1))), data(tmp_path))
    assert len(seen) == 6 and len(set(seen)) == 2 and seen[:2] == seen[2:4] == seen[4:]


def test_a_rank_without_a_task_to_measure_takes_part(tmp_path: Path) -> None:
    """Else the other ranks would wait for its errors; there are two tasks, and this is the third of three ranks."""

    class Third(ExplanationTaskDataModule):
        rank = (2, 3)

    told: list[str] = []

    class Telling(MetaLearningModule):
        def _report(self, stage: str) -> None:  # type: ignore[override]
            told.append(stage)
            super()._report(stage)  # type: ignore[arg-type]

    train, held_out = small_run.families(tmp_path)
    tasks = Third(train, held_out, batches=None)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message="The ``compute`` method")
        quiet(tmp_path).validate(Telling(ZeroShot(ShapleyExplainer(8, 1))), tasks, verbose=False)
    assert told == ["validation"]


def test_a_learning_rate_is_found(tmp_path: Path) -> None:
    module = MetaLearningModule(ZeroShot(ShapleyExplainer(8, 1)))
    found = Tuner(quiet(tmp_path)).lr_find(module, datamodule=data(tmp_path, steps_per_epoch=60), num_training=30)
    assert found is not None and len(found.results["loss"]) == 30
    assert module.learning_rate == found.suggestion()


@pytest.mark.parametrize("batched", [False, True], ids=["tasks", "batches of tasks"])
def test_a_loader_of_ones_own_has_a_batch_size(batched: bool, tmp_path: Path) -> None:
    tasks = data(tmp_path)
    tasks.setup("fit")
    joined = [tasks.train_dataloader().dataset.batch(step) for step in range(3)]
    own = joined if batched else [batch[task] for batch in joined for task in range(2)]
    loader = DataLoader(own, batch_size=2)  # type: ignore[arg-type]
    sizes = [len(batch.query.attributions) for batch in loader]
    assert sizes == ([4, 2] if batched else [2, 2, 2])
    module = MetaLearningModule(MAML(ShapleyExplainer(8, 1), steps=1), warmup_steps=1)
    trainer = quiet(tmp_path, enable_checkpointing=False)
    trainer.fit(module, loader, loader)
    assert trainer.global_step == len(sizes) and trainer.callback_metrics["train/loss"].isfinite()


@pytest.mark.parametrize(
    "settings",
    [{"precision": "bf16-mixed"}, {"precision": "16-mixed"}, {"accumulate_grad_batches": 3, "gradient_clip_val": 1.0}],
)
def test_what_lightning_offers_works(settings: dict[str, object], tmp_path: Path) -> None:
    module = MetaLearningModule(ZeroShot(ShapleyExplainer(8, 1)), schedule="constant")
    quiet(tmp_path, enable_checkpointing=False, **settings).fit(module, data(tmp_path))
    assert all(parameter.isfinite().all() for parameter in module.parameters())


def test_ranks_share_a_step_without_duplicates(tmp_path: Path) -> None:
    tasks = data(tmp_path, batches_per_step=4, support_rows=[1, 2, 3])
    tasks.setup("fit")
    whole = tasks.train_dataloader().dataset
    assert isinstance(whole, Steps)
    expected = [whole.batch(step) for step in range(6)]
    assert len({len(task.support) for task in expected}) > 1
    shares = []
    for rank in range(2):
        whole.rank, whole.ranks = rank, 2
        shares.append([whole.batch(step) for step in range(6)])
    for task, first, second in zip(expected, *shares, strict=True):
        assert torch.equal(task.query.attributions[0::2], first.query.attributions)
        assert torch.equal(task.query.attributions[1::2], second.query.attributions)
    whole.ranks = 3
    with pytest.raises(ValueError, match="4 tasks per step cannot be shared equally by 3 ranks"):
        whole.batch(0)
    with pytest.raises(ValueError, match="joins 9 different batches, but there are only 8"):
        tasks.batches_per_step = 9
        tasks.train_dataloader()


def test_tensorboard_gets_the_loss_and_the_errors(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from lightning.pytorch.loggers import TensorBoardLogger
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    logger = TensorBoardLogger(tmp_path)
    module = MetaLearningModule(ZeroShot(ShapleyExplainer(8, 1)))
    quiet(tmp_path, logger=logger, log_every_n_steps=1, enable_checkpointing=False).fit(module, data(tmp_path))
    written = EventAccumulator(logger.log_dir).Reload()
    assert len(written.Scalars("train/loss")) == 3
    assert written.Scalars("validation/error")[0].value > 0
