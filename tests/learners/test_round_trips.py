"""Everything that changes an answer is in a learner's files: each constructor argument of each learner, by a round trip."""

import inspect
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning import Trainer

import captum_meta.learners as learners
import captum_meta.nn as networks
from captum_meta import losses
from captum_meta.learners import (
    MAML,
    DeepKernelTransfer,
    FeatureMAML,
    GradientLearner,
    KernelRidge,
    MetaLearner,
    Stacking,
    load_learner,
)
from captum_meta.learners.storage import build, configuration
from captum_meta.nn import CosineSimilarity, EmbeddingEncoder, InputEncoder, LearnedDescent, PathExplainer, ShapleyExplainer
from captum_meta.optim import (
    Annealed,
    Backprop,
    FirstOrder,
    Hypergradient,
    Implicit,
    MultiStepLoss,
    PersistentES,
    Reversible,
    Segmented,
    Truncated,
)
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.module import MetaLearningModule, learner_from_checkpoint
from captum_meta.types import Explanations

CLASSES = {
    name: getattr(learners, name)
    for name in learners.__all__
    if inspect.isclass(getattr(learners, name)) and not inspect.isabstract(getattr(learners, name))
}

OTHER: dict[str, Any] = {
    "fast": ("head.*", "norm.*"),
    "steps": 2,
    "rate": 0.05,
    "momentum": 0.5,
    "strength": 2.0,
    "hypergradient": FirstOrder(),
    "inner_loss": losses.mean_squared_error,
    "outer_loss": losses.mean_squared_error,
    "clip": 0.01,
    "zero_shot": 0.5,
    "rule": "lstm",
    "confidence": 0.3,
    "features": 16,
    "encoder": {"features": 16, "width": 24, "depth": 2},
    "shared": 8,
    "own": 4,
    "base": "a kernel regression",
    "surrogate": LearnedDescent(4),
    "transfer": 0.5,
    "similarity": CosineSimilarity(0.5),
    "head": "none",
    "values": "attributions",
    "key_width": 8,
    "neighbours": 2,
    "clusters": 2,
    "kernel": "a trained one",
}
"""A value of each constructor argument that is not its default."""

IN_THE_WEIGHTS = {"rate", "momentum", "strength", "kernel"}
"""Arguments from which parameters start: what is learned from them is among the weights."""


def arguments_of(kind: type[MetaLearner]) -> list[str]:
    return [name for name in inspect.signature(kind).parameters if name != "explainer"]


def value_of(name: str, kind: type[MetaLearner]) -> Any:
    if name == "kernel":
        return DeepKernelTransfer(ShapleyExplainer(16, 1))
    if name == "base":
        return KernelRidge(ShapleyExplainer(16, 1), features=16)
    if name == "encoder" and "key_width" in arguments_of(kind):
        return InputEncoder(24)
    return OTHER[name]


CASES = [
    pytest.param(kind, [argument], id=f"{name}-{argument}")
    for name, kind in CLASSES.items()
    for argument in arguments_of(kind)
]
CASES += [pytest.param(kind, [], id=f"{name}-defaults") for name, kind in CLASSES.items()]


@pytest.fixture(scope="module")
def explained() -> Explanations:
    """Rows whose attributions are easily learned: the mean effect, times a factor of each player's own."""
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=16, seed=5)[2]
    attributions = rows.evidence.effects.mean(-1) * torch.linspace(0.5, 1.5, rows.attributions.shape[-1])
    evidence = replace(rows.evidence, total=attributions.sum(-1), coalitions=None)
    return replace(rows, attributions=attributions, evidence=evidence, variance=None)


def made(kind: type[MetaLearner], arguments: list[str]) -> MetaLearner:
    torch.manual_seed(0)
    few = {"steps": 3} if issubclass(kind, GradientLearner) else {}
    values = {**few, **{name: value_of(name, kind) for name in arguments}}
    if kind is Stacking:
        return Stacking(**{"base": DeepKernelTransfer(ShapleyExplainer(16, 1)), **values}).eval()
    return kind(ShapleyExplainer(16, 1), **values).eval()


def answers(learner: MetaLearner, explained: Explanations) -> torch.Tensor:
    return learner.eval().predict(learner.adapt(explained[:, :12]), explained[:, 12:].evidence)


@pytest.mark.parametrize("name", CLASSES)
def test_every_argument_is_told_or_learned(name: str) -> None:
    told = made(CLASSES[name], []).arguments()
    missing = set(arguments_of(CLASSES[name])) - told.keys() - IN_THE_WEIGHTS
    assert not missing, f"{name}.arguments() lacks {missing}"
    assert told.keys() <= set(arguments_of(CLASSES[name]))


@pytest.mark.parametrize(("kind", "arguments"), CASES)
def test_what_is_loaded_answers_and_trains_as_what_was_saved(
    kind: type[MetaLearner], arguments: list[str], tmp_path: Path, explained: Explanations
) -> None:
    learner = made(kind, arguments)
    learner.save(tmp_path / "mine")
    loaded = load_learner(tmp_path / "mine")
    assert configuration(loaded) == configuration(learner)
    json.dumps(configuration(learner), allow_nan=False)
    assert torch.equal(answers(loaded, explained), answers(learner, explained))
    if hasattr(learner, "hypergradient"):
        assert type(loaded.hypergradient) is type(learner.hypergradient)
        for name in ("inner_loss", "outer_loss", "zero_shot"):
            assert getattr(loaded, name) == getattr(learner, name)


@pytest.mark.parametrize("kind", [MAML, FeatureMAML])
@pytest.mark.parametrize("argument", ["inner_loss", "steps", "fast", "rate", "clip", "confidence"])
def test_arguments_change_answers(kind: type[MetaLearner], argument: str, explained: Explanations) -> None:
    """Else the round trips would show nothing."""
    if argument in arguments_of(kind):
        assert not torch.equal(answers(made(kind, []), explained), answers(made(kind, [argument]), explained))


@pytest.mark.usefixtures("unchecked")
@pytest.mark.parametrize("loss", ["relative_squared_error", "importance_cross_entropy", "cosine_and_magnitude"])
def test_losses_are_passed_by_name(loss: str) -> None:
    assert MAML(ShapleyExplainer(16, 1), inner_loss=loss).inner_loss is getattr(losses, loss)
    with pytest.raises(ValueError, match=r"no loss 'huber': pass a function, or one of .*'mean_squared_error'"):
        MAML(ShapleyExplainer(16, 1), inner_loss="huber")


@pytest.mark.parametrize(
    "hypergradient",
    [
        Backprop(),
        FirstOrder(),
        Reversible(),
        Implicit(3),
        Segmented(4),
        Truncated(2, second_order=False),
        PersistentES(2, pairs=3, sigma=0.1, seed=5),
        MultiStepLoss(100_000, second_order=False),
        Annealed(FirstOrder(), Truncated(3), 1_000_000),
    ],
    ids=lambda h: type(h).__name__,
)
def test_hypergradients_come_back(hypergradient: Hypergradient, tmp_path: Path) -> None:
    learner = MAML(ShapleyExplainer(16, 1), hypergradient=hypergradient)
    learner.save(tmp_path / "mine")
    loaded = load_learner(tmp_path / "mine")
    assert isinstance(loaded, MAML) and flat(loaded.hypergradient) == flat(hypergradient)


class OwnOrder(FirstOrder):
    pass


@pytest.mark.parametrize("own", [OwnOrder(), Annealed(OwnOrder(), Backprop(), 5)], ids=["own", "within"])
def test_a_trained_learner_does_without_a_hypergradient_of_ones_own(own: Hypergradient, tmp_path: Path) -> None:
    MAML(ShapleyExplainer(16, 1), hypergradient=own).save(tmp_path / "mine")
    assert type(load_learner(tmp_path / "mine").hypergradient) is Backprop


def flat(value: Any) -> Any:
    if isinstance(value, Hypergradient):
        return type(value), {name: flat(part) for name, part in vars(value).items()}
    return value


@pytest.mark.parametrize("name", networks.__all__)
def test_the_networks_within_tell_all_their_arguments(name: str) -> None:
    kind = getattr(networks, name)
    if not hasattr(kind, "arguments") or inspect.isabstract(kind):
        return
    taken = [p for p in inspect.signature(kind).parameters if p not in ("args", "kwargs", "temperature")]
    given = {"width": 24, "depth": 2, "features": 16, "layer": "body", "hidden": 5, "heads": 3, "steps": 7, "rows": True}
    part = kind(**{argument: given[argument] for argument in taken})
    assert dict(part.arguments()) == {argument: given[argument] for argument in taken}


def test_a_checkpoint_holds_all_of_it(tmp_path: Path, explained: Explanations) -> None:
    torch.manual_seed(0)
    learner = MAML(PathExplainer(16, 1), ("head.*",), 3, 0.1, FirstOrder(), losses.mean_squared_error, 0.5)
    learner.explainer.norm.requires_grad_(False)
    module = MetaLearningModule(learner, learning_rate=0.5)
    trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    trainer.strategy.connect(module)
    trainer.save_checkpoint(tmp_path / "run.ckpt")
    loaded = MetaLearningModule.load_from_checkpoint(tmp_path / "run.ckpt")
    assert configuration(loaded.learner) == configuration(learner)
    frozen = {name for name, parameter in learner.named_parameters() if not parameter.requires_grad}
    assert frozen == {name for name, parameter in loaded.learner.named_parameters() if not parameter.requires_grad} != set()
    path = SyntheticTaskFamily("path", tasks_per_batch=2, rows=24, seed=5).variants(5)[2]
    assert torch.equal(answers(learner_from_checkpoint(tmp_path / "run.ckpt"), path), answers(learner, path))


def test_configurations_of_earlier_releases_mean_the_defaults() -> None:
    config = configuration(MAML(ShapleyExplainer(16, 1)))
    config["arguments"] = {"fast": ["*"], "steps": 5}
    assert configuration(build(config)) == configuration(MAML(ShapleyExplainer(16, 1)))


def test_an_encoder_of_a_layer_is_told(tmp_path: Path) -> None:
    learner = learners.MatchingNetwork(ShapleyExplainer(16, 1), EmbeddingEncoder("body.2", 8))
    learner.save(tmp_path / "mine")
    assert load_learner(tmp_path / "mine").reading.layer == "body.2"
