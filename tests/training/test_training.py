"""A learner trains through the one Lightning module, and what comes out loads as a learner."""

from itertools import pairwise
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from torch import Tensor

from captum_meta.learners import MatchingNetwork, MetaLearner, Ridge, ZeroShot, load_learner
from captum_meta.nn import PathExplainer, ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training import ExplanationTaskDataModule, MetaLearningModule
from captum_meta.training.save import SaveLearner


def data(kind: str, folder: Path | None = None, support_rows: int = 0) -> ExplanationTaskDataModule:
    families = [SyntheticTaskFamily(kind, tasks_per_batch=2, rows=8, seed=seed) for seed in (8, 9)]  # type: ignore[arg-type]
    return ExplanationTaskDataModule(
        *families,
        batches=3,
        validation_batches=2,
        steps_per_epoch=5,
        support_rows=support_rows,
        folder=None if folder is None else str(folder),
    )


def trainer(folder: Path, **arguments: object) -> Trainer:
    return Trainer(
        default_root_dir=folder,
        logger=False,
        accelerator="cpu",
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        **{"max_epochs": 1, **arguments},  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("learner", [ZeroShot(ShapleyExplainer(16, 1)), ZeroShot(PathExplainer(16, 1))])
def test_fit_changes_the_weights_and_saves_a_learner(learner: MetaLearner, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in learner.state_dict().items()}
    module = MetaLearningModule(learner, warmup_steps=1)
    run = trainer(tmp_path, callbacks=[SaveLearner(str(tmp_path / "learned"))])
    run.fit(module, data(learner.kind))
    assert any(not torch.equal(value, before[name]) for name, value in learner.state_dict().items())
    assert run.callback_metrics["validation/error"] >= 0
    loaded = load_learner(tmp_path / "learned", learner.kind)
    assert all(torch.equal(value, learner.state_dict()[name]) for name, value in loaded.state_dict().items())


def test_learners_that_adapt_validate_on_the_query_rows(tmp_path: Path) -> None:
    module = MetaLearningModule(Ridge(ShapleyExplainer(16, 1)))
    results = trainer(tmp_path).validate(module, data("shapley", support_rows=5), verbose=False)
    assert results[0]["validation/error"] >= 0


def test_tasks_are_made_once_and_steps_depend_on_the_seed_alone(tmp_path: Path) -> None:
    first, second = data("shapley", tmp_path / "tasks"), data("shapley", tmp_path / "tasks")
    first.setup("fit")
    stamps = {path: path.stat().st_mtime_ns for path in (tmp_path / "tasks").rglob("*.safetensors")}
    second.setup("fit")
    assert stamps == {path: path.stat().st_mtime_ns for path in (tmp_path / "tasks").rglob("*.safetensors")}
    one, other = list(first.train_dataloader()), list(second.train_dataloader())
    for left, right in zip(one, other, strict=True):
        assert torch.equal(left.query.attributions, right.query.attributions)


def test_a_family_without_finite_tasks_is_refused() -> None:
    class Broken:
        def variants(self, index: int) -> list:
            good = SyntheticTaskFamily("path", tasks_per_batch=1, rows=2)[0]
            return [good.map(lambda tensor: tensor * torch.nan if tensor.is_floating_point() else tensor)]

    with pytest.raises(ValueError, match="no batch of finite explanations"):
        ExplanationTaskDataModule(Broken(), Broken(), batches=1, validation_batches=1).setup("fit")


def test_encoder_and_similarity_train_in_turn(tmp_path: Path) -> None:
    """Two steps of the encoder, then two of the similarity, and so on."""
    learner = MatchingNetwork(ShapleyExplainer(16, 1))
    seen: list[dict[str, Tensor]] = []

    class Watch(Callback):
        def on_train_batch_end(self, trainer: Trainer, module: MetaLearningModule, *arguments: object) -> None:  # type: ignore[override]
            seen.append({name: torch.cat([p.detach().flatten() for p in part]) for name, part in learner.parts().items()})

    def similarity(queries: Tensor, keys: Tensor) -> Tensor:
        return queries @ keys.mT

    seen.append({name: torch.cat([p.detach().flatten() for p in part]) for name, part in learner.parts().items()})
    trainer(tmp_path, callbacks=[Watch()]).fit(
        MetaLearningModule(learner, alternate=2, warmup_steps=1, schedule="constant"), data("shapley", support_rows=5)
    )
    moved = [[name for name in after if not torch.equal(before[name], after[name])] for before, after in pairwise(seen)]
    assert moved == [["encoder"], ["encoder"], ["similarity"], ["similarity"], ["encoder"]]
    own = MatchingNetwork(ShapleyExplainer(16, 1), similarity=similarity)
    run = trainer(tmp_path)
    run.fit(MetaLearningModule(own), data("shapley", support_rows=5))
    run.save_checkpoint(tmp_path / "own.ckpt")
    with pytest.raises(ValueError, match="pass learner="):
        MetaLearningModule.load_from_checkpoint(tmp_path / "own.ckpt")
    again = MatchingNetwork(ShapleyExplainer(16, 1), similarity=similarity)
    MetaLearningModule.load_from_checkpoint(tmp_path / "own.ckpt", learner=again)
    assert all(torch.equal(value, own.state_dict()[name]) for name, value in again.state_dict().items())
