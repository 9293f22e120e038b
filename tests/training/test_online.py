"""Online meta-learning: each round measured, then learned from, and the stream taken up where it stopped."""

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from lightning import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader

from captum_meta.learners import ANIL, MetaLearner, Reptile, Ridge, TransferGaussianProcess, ZeroShot
from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import LabelError, ModelStream
from captum_meta.tasks.joining import join
from captum_meta.training import FollowTheMetaLeader, TaskStream, best_in_hindsight, learner_from_checkpoint, stream_errors
from captum_meta.training.hindsight import Hindsight
from captum_meta.types import Explanations, ExplanationTask

SUPPORT = 3


class OfTheDay(nn.Module):
    """Three features on even days, four on odd ones."""

    def __init__(self, day: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(day)
        self.first = nn.Parameter(torch.randn(3 + day % 2, 6, generator=generator))
        self.second = nn.Parameter(torch.randn(6, generator=generator))
        self.dropout = nn.Dropout(0.5)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.dropout(x @ self.first)) @ self.second


def explained(day: int) -> tuple[nn.Module, Tensor]:
    model = OfTheDay(day)
    return model, torch.randn(12, len(model.first), generator=torch.Generator().manual_seed(100 + day))


def stream(days: int = 5, of_the_day: Callable[[int], tuple[nn.Module, Tensor]] = explained) -> TaskStream:
    return TaskStream(ModelStream(of_the_day, days, rows=8, coalitions=0), SUPPORT)


def tasks(days: int = 5) -> list[ExplanationTask]:
    return [task for task in stream(days) if task is not None]


def loader(rounds: list[ExplanationTask]) -> DataLoader:
    return DataLoader(rounds, batch_size=None)  # type: ignore[arg-type]


def learner(kind: Callable[[ShapleyExplainer], MetaLearner] = Ridge) -> MetaLearner:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return kind(ShapleyExplainer(8, 1))


def online(kind: Callable[[ShapleyExplainer], MetaLearner] = Ridge, **arguments: int) -> FollowTheMetaLeader:
    return FollowTheMetaLeader(learner(kind), **{"steps": 3, "tasks_per_step": 2, "memory": 3, **arguments})  # type: ignore[arg-type]


def trainer(*callbacks: Callback, epochs: int = -1) -> Trainer:
    return Trainer(
        max_epochs=epochs,
        logger=False,
        accelerator="cpu",
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=list(callbacks),
    )


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


@pytest.fixture(scope="module")
def whole() -> FollowTheMetaLeader:
    """A run that nothing interrupts."""
    module = online()
    trainer().fit(module, stream())
    return module


def test_a_run_is_the_plain_loop(whole: FollowTheMetaLeader) -> None:
    plain, errors, buffer = learner(), [], []
    optimizer = torch.optim.AdamW(plain.parameters(), lr=2e-3, weight_decay=1e-4)
    for number, task in enumerate(tasks()):
        with torch.no_grad():
            predicted = plain.predict(plain.adapt(task.support), task.query.evidence)
        difference = (predicted - task.query.attributions).square().sum()
        errors.append(float(difference / task.query.attributions.square().sum()))
        buffer = [*buffer, Explanations.concatenate([task.support, task.query], dim=1)][-3:]
        generator = torch.Generator().manual_seed(number)
        for _ in range(3):
            drawn = [buffer[i] for i in torch.randperm(len(buffer), generator=generator)[:2].tolist()]
            drawn = [rows[:, torch.randperm(8, generator=generator)] for rows in drawn]
            rows = join(drawn)
            optimizer.zero_grad()
            plain.loss(ExplanationTask(rows[:, :SUPPORT], rows[:, SUPPORT:])).backward()
            nn.utils.clip_grad_norm_(plain.parameters(), 1.0)
            optimizer.step()
    assert whole.errors == pytest.approx(errors, rel=1e-5)
    for one, other in zip(whole.learner.parameters(), plain.parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6)


def test_the_error_is_measured_before_the_update() -> None:
    """The first is the untrained learner's, and without steps all are."""
    still, moving = online(steps=0), online(steps=5)
    for module in (still, moving):
        trainer().fit(module, stream())
    fixed = stream_errors(learner(), tasks())
    assert still.errors == pytest.approx(fixed)
    assert moving.errors[0] == fixed[0] and all(a != b for a, b in zip(moving.errors[1:], fixed[1:], strict=True))


class Killed(Callback):
    """Ends the run before a batch, as a signal would."""

    def __init__(self, batch: int) -> None:
        self.batch = batch

    def on_train_batch_start(self, trainer: Trainer, module: object, batch: object, batch_idx: int) -> None:  # type: ignore[override]
        if batch_idx == self.batch:
            raise RuntimeError("killed")


def test_killed_and_resumed_it_goes_on_identically(whole: FollowTheMetaLeader, tmp_path: Path) -> None:
    keep = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(keep, Killed(3)).fit(online(), stream())
    checkpoint = torch.load(tmp_path / "last.ckpt", weights_only=True)
    assert all(name.startswith("learner.explainer.") for name in checkpoint["state_dict"])
    torch.manual_seed(77)
    resumed, again = online(seed=0), stream()
    trainer().fit(resumed, again, ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert again.first == 5  # the rounds of the first run were not explained again, and none was left over
    assert resumed.errors == whole.errors and same(resumed, whole)


def test_what_is_followed_in_closed_form_is_resumed_too(tmp_path: Path) -> None:
    whole, first, resumed = (online(TransferGaussianProcess, steps=1, memory=2) for _ in range(3))
    trainer().fit(whole, stream())
    keep = ModelCheckpoint(tmp_path, filename="last", every_n_train_steps=1, enable_version_counter=False)
    with pytest.raises(RuntimeError, match="killed"):
        trainer(keep, Killed(3)).fit(first, stream())
    trainer().fit(resumed, stream(), ckpt_path=tmp_path / "last.ckpt", weights_only=True)
    assert resumed.errors == whole.errors
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in resumed.state_dict().items())


def test_a_round_knows_what_the_buffer_holds() -> None:
    module, plain, earlier = online(TransferGaussianProcess, steps=0, memory=2), learner(TransferGaussianProcess), tasks()
    trainer().fit(module, stream())
    plain.condition_on([Explanations.concatenate([task.support, task.query], dim=1) for task in earlier[2:4]])
    assert stream_errors(plain, earlier)[4] == pytest.approx(module.errors[4], rel=1e-5)


def test_a_stream_that_became_longer_is_followed_on(whole: FollowTheMetaLeader, tmp_path: Path) -> None:
    days = online()
    run = trainer()
    run.fit(days, stream(3))
    run.save_checkpoint(tmp_path / "day3.ckpt")
    days = online()
    trainer().fit(days, stream(5), ckpt_path=tmp_path / "day3.ckpt", weights_only=True)
    assert days.errors == whole.errors and same(days, whole)
    loaded = FollowTheMetaLeader.load_from_checkpoint(tmp_path / "day3.ckpt")
    assert loaded.errors == whole.errors[:3] and len(loaded.buffer) == 3 and loaded.memory == 3
    assert isinstance(learner_from_checkpoint(tmp_path / "day3.ckpt"), Ridge)


def test_the_buffer_keeps_the_latest(whole: FollowTheMetaLeader) -> None:
    assert len(whole.buffer) == 3
    kept = [told["rows"]["attributions"] for told in whole.buffer.state_dict()]
    for rows, task in zip(kept, tasks()[2:], strict=True):
        assert torch.equal(rows, torch.cat([task.support.attributions, task.query.attributions], dim=1))


def test_another_seed_draws_other_tasks(whole: FollowTheMetaLeader) -> None:
    other = online(seed=1)
    trainer().fit(other, stream())
    assert other.errors[0] == whole.errors[0] and other.errors[-1] != whole.errors[-1]


@pytest.mark.parametrize(
    "kind", [ZeroShot, lambda explainer: ANIL(explainer, steps=1), Reptile], ids=["zero", "anil", "reptile"]
)
def test_any_learner_follows(kind: Callable[[ShapleyExplainer], MetaLearner]) -> None:
    module = online(kind, steps=1)
    trainer(epochs=1).fit(module, loader(tasks(2)))
    assert len(module.errors) == 2 and all(map(math.isfinite, module.errors))
    assert not same(module, FollowTheMetaLeader(learner(kind)))
    assert module.trainer.callback_metrics["round/error"] == pytest.approx(module.errors[-1])
    assert module.trainer.callback_metrics["round/mean error"] == pytest.approx(sum(module.errors) / 2)


def test_explained_models_stay_as_they_are() -> None:
    models = [OfTheDay(day) for day in range(2)]
    before = [{name: value.clone() for name, value in model.state_dict().items()} for model in models]
    module = online()
    trainer().fit(module, stream(2, lambda day: (models[day], explained(day)[1])))
    for model, values in zip(models, before, strict=True):
        assert model.training and all(p.grad is None and p.requires_grad for p in model.parameters())
        assert all(torch.equal(value, values[name]) for name, value in model.state_dict().items())
    assert not any(isinstance(part, OfTheDay) for part in module.modules())


def test_tasks_of_other_numbers_of_rows_share_a_step() -> None:
    first, second = tasks(2)
    short = ExplanationTask(first.support[:, :2], first.query[:, :2])
    module = online()
    trainer(epochs=1).fit(module, loader([short, second]))
    drawn = module.buffer.draw(2, torch.Generator().manual_seed(0))
    assert drawn.support.attributions.shape == (2, 2, 4) and drawn.query.attributions.shape == (2, 2, 4)


def test_a_round_that_is_not_finite_is_left_out() -> None:
    good = tasks(3)
    broken = replace(good[1], query=replace(good[1].query, attributions=good[1].query.attributions * torch.nan))
    module, without = online(), online()
    with pytest.warns(UserWarning, match="Round 1 is left out"):
        trainer(epochs=1).fit(module, loader([good[0], broken, good[2]]))
    assert math.isnan(module.errors[1]) and math.isfinite(module.errors[2]) and len(module.buffer) == 2
    trainer(epochs=1).fit(without, loader([good[0]]))
    assert module.errors[0] == without.errors[0]
    assert math.isnan(stream_errors(module.learner, [broken])[0])


def test_a_model_that_cannot_be_explained_is_left_out() -> None:
    def of_the_day(day: int) -> tuple[nn.Module, Tensor]:
        model, rows = explained(day)
        return (nn.Sequential(model, Infinite()) if day == 1 else model), rows

    module = online()
    with pytest.warns(UserWarning, match="Round 1 is left out: Model 0 on 'data' cannot be explained"):
        trainer().fit(module, stream(3, of_the_day))
    assert [math.isnan(error) for error in module.errors] == [False, True, False]


class Infinite(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x / 0


def test_what_is_already_exact_teaches_nothing() -> None:
    """All coalitions of three players are known, so the answer does not depend on the learner."""
    exact = TaskStream(ModelStream(lambda day: explained(0), 1, rows=8, coalitions=4), SUPPORT)
    module = online()
    with pytest.warns(UserWarning, match="3 of 3 steps of round 0 were not taken"):
        trainer().fit(module, exact)
    assert same(module, online())


def test_regret_is_against_the_best_fixed_learner() -> None:
    rounds = tasks(4)
    start = learner()
    fixed = stream_errors(start, rounds)
    nothing = best_in_hindsight(start, rounds, steps=0)
    assert nothing.errors == fixed and nothing.regret(fixed) == [0.0] * 4
    best = best_in_hindsight(start, rounds, steps=20, every=5)
    assert sum(best.errors) < sum(fixed) and best.errors == pytest.approx(stream_errors(best.learner, rounds))
    assert same(start, learner())
    regret = best.regret(fixed)
    assert regret[-1] == pytest.approx(sum(fixed) - sum(best.errors)) and regret[0] == pytest.approx(
        fixed[0] - best.errors[0]
    )
    assert Hindsight(start, [1.0, 1.0]).regret([2.0, math.nan]) == [1.0, 1.0]
    with pytest.raises(ValueError, match="3 errors for 4 rounds"):
        best.regret(fixed[:3])
    with pytest.raises(ValueError, match="no rounds"):
        best_in_hindsight(start, [])


class Endless:
    def variants(self, index: int) -> list[Explanations]:
        raise LabelError("never asked")


def test_bad_arguments_are_named() -> None:
    with pytest.raises(ValueError, match="Endless has no end: pass rounds="):
        TaskStream(Endless(), SUPPORT)
    with pytest.raises(ValueError, match="no rounds"):
        TaskStream(Endless(), SUPPORT, rounds=0)
    with pytest.raises(ValueError, match="days is 0"):
        ModelStream(explained, 0)
    with pytest.raises(ValueError, match="memory=0"):
        FollowTheMetaLeader(learner(), memory=0)
