"""What holds for every meta-learner: a new one is a line in the table."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from captum_meta.learners import (
    ANIL,
    MAML,
    DeepKernelTransfer,
    FeatureMAML,
    ImplicitMAML,
    KernelRidge,
    LearnedOptimizer,
    MatchingNetwork,
    MetaLearner,
    MetaSGD,
    MomentumMAML,
    PrototypicalNetwork,
    Reptile,
    Ridge,
    SurrogateMAML,
    SurrogateStacking,
    TransferGaussianProcess,
    ZeroShot,
    list_learners,
    load_learner,
)
from captum_meta.nn import (
    AttentionSimilarity,
    CosineSimilarity,
    InputEncoder,
    MLPSimilarity,
    PathExplainer,
    ShapleyExplainer,
)
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.chunks import loss_in_chunks
from captum_meta.types import Explanations, ExplanationTask

LEARNERS: dict[str, Callable[[], MetaLearner]] = {
    "zero-shot": lambda: ZeroShot(ShapleyExplainer(16, 1)),
    "zero-shot path": lambda: ZeroShot(PathExplainer(16, 1)),
    "ridge": lambda: Ridge(ShapleyExplainer(16, 1)),
    "ridge path": lambda: Ridge(PathExplainer(16, 1)),
    "kernel-ridge": lambda: KernelRidge(ShapleyExplainer(16, 1)),
    "kernel-ridge path": lambda: KernelRidge(PathExplainer(16, 1)),
    "deep-kernel": lambda: DeepKernelTransfer(ShapleyExplainer(16, 1)),
    "deep-kernel path": lambda: DeepKernelTransfer(PathExplainer(16, 1)),
    "surrogate": lambda: SurrogateStacking(ShapleyExplainer(16, 1)),
    "surrogate path": lambda: SurrogateStacking(PathExplainer(16, 1)),
    "surrogate-maml": lambda: SurrogateMAML(ShapleyExplainer(16, 1), descent_steps=5),
    "surrogate-maml path": lambda: SurrogateMAML(PathExplainer(16, 1), descent_steps=5),
    "transfer-gaussian-process": lambda: TransferGaussianProcess(ShapleyExplainer(16, 1)),
    "transfer-gaussian-process path": lambda: TransferGaussianProcess(PathExplainer(16, 1)),
    "maml": lambda: MAML(ShapleyExplainer(16, 1), steps=2),
    "maml path": lambda: MAML(PathExplainer(16, 1), steps=2),
    "feature-maml": lambda: FeatureMAML(ShapleyExplainer(16, 1), steps=3),
    "feature-maml path": lambda: FeatureMAML(PathExplainer(16, 1), steps=3),
    "anil": lambda: ANIL(ShapleyExplainer(16, 1), steps=2),
    "meta-sgd": lambda: MetaSGD(ShapleyExplainer(16, 1), steps=2),
    "reptile": lambda: Reptile(ShapleyExplainer(16, 1), steps=2),
    "implicit-maml": lambda: ImplicitMAML(ShapleyExplainer(16, 1), steps=2),
    "momentum-maml": lambda: MomentumMAML(ShapleyExplainer(16, 1), steps=5),
    "learned-optimizer": lambda: LearnedOptimizer(ShapleyExplainer(16, 1), steps=3),
    "learned-optimizer lstm": lambda: LearnedOptimizer(PathExplainer(16, 1), ("head.*",), 2, "lstm"),
    "matching": lambda: MatchingNetwork(ShapleyExplainer(16, 1)),
    "matching path": lambda: MatchingNetwork(PathExplainer(16, 1), neighbours=4),
    "matching cosine": lambda: MatchingNetwork(ShapleyExplainer(16, 1), InputEncoder(16), CosineSimilarity()),
    "matching MLP": lambda: MatchingNetwork(ShapleyExplainer(16, 1), similarity=MLPSimilarity(16)),
    "matching attention": lambda: MatchingNetwork(ShapleyExplainer(16, 1), similarity=AttentionSimilarity(16), head="none"),
    "prototypical": lambda: PrototypicalNetwork(ShapleyExplainer(16, 1)),
    "prototypical path": lambda: PrototypicalNetwork(PathExplainer(16, 1), similarity=CosineSimilarity()),
    "prototypical MLP": lambda: PrototypicalNetwork(ShapleyExplainer(16, 1), similarity=MLPSimilarity(16)),
    "prototypical attention": lambda: PrototypicalNetwork(ShapleyExplainer(16, 1), similarity=AttentionSimilarity(16)),
}


@pytest.fixture(scope="module")
def batches() -> dict[str, Explanations]:
    return {
        "shapley": SyntheticTaskFamily("shapley", tasks_per_batch=3, rows=10, seed=5)[6],
        "path": SyntheticTaskFamily("path", tasks_per_batch=3, rows=10, seed=5).variants(5)[2],
    }


def build(name: str) -> MetaLearner:
    torch.manual_seed(0)
    return LEARNERS[name]().eval()


def tasks_for(learner: MetaLearner, batches: dict[str, Explanations]) -> ExplanationTask:
    explained = batches[learner.kind]
    measured = replace(explained, evidence=replace(explained.evidence, coalitions=None))
    support = explained if learner.support_evaluations(6) else measured
    return ExplanationTask(support[:, :6], measured[:, 6:])


@pytest.mark.parametrize("name", LEARNERS)
class TestEveryLearner:
    def test_predictions_satisfy_efficiency(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        predicted = learner.predict(learner.adapt(tasks.support), tasks.query.evidence)
        assert predicted.shape == tasks.query.attributions.shape
        assert torch.allclose(predicted.sum(-1), tasks.query.evidence.total, rtol=1e-4, atol=1e-5)

    def test_a_player_without_any_effect_gets_nothing(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        evidence = tasks.query.evidence
        effects = evidence.effects.clone()
        effects[..., 1, :] = 0
        predicted = learner.predict(learner.adapt(tasks.support), replace(evidence, effects=effects))
        assert (predicted[..., 1] == 0).all() and (predicted != 0).any()

    def test_the_state_is_plain_tensors_and_the_meta_parameters_stay(
        self, name: str, batches: dict[str, Explanations]
    ) -> None:
        learner = build(name)
        before = {key: value.clone() for key, value in learner.state_dict().items()}
        state = learner.adapt(tasks_for(learner, batches).support)
        assert all(isinstance(value, torch.Tensor) for value in state.values())
        assert all(torch.equal(value, before[key]) for key, value in learner.state_dict().items())

    def test_a_batch_of_tasks_is_the_tasks_one_by_one(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name).double()
        tasks = tasks_for(learner, batches).to(dtype=torch.float64)
        together = learner.predict(learner.adapt(tasks.support), tasks.query.evidence)
        for index in range(3):
            task = tasks[index]
            alone = learner.predict(learner.adapt(task.support), task.query.evidence)
            assert torch.allclose(alone, together[index], rtol=1e-6, atol=1e-9)

    def test_the_order_of_support_rows_does_not_matter(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name).double()
        tasks = tasks_for(learner, batches).to(dtype=torch.float64)
        shuffled = tasks.support[:, torch.tensor([3, 0, 5, 1, 4, 2])]
        first = learner.predict(learner.adapt(tasks.support), tasks.query.evidence)
        second = learner.predict(learner.adapt(shuffled), tasks.query.evidence)
        assert torch.allclose(first, second, rtol=1e-6, atol=1e-9)

    def test_the_initial_state_explains(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name)
        predicted = learner.predict(learner.initial_state(), tasks_for(learner, batches).query.evidence)
        assert predicted.isfinite().all()

    def test_the_loss_trains(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name)
        learner.loss(tasks_for(learner, batches)).backward()
        gradients = [p.grad for p in learner.parameters() if p.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)

    def test_the_gradient_of_chunks_is_that_of_all_tasks(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name).double()
        tasks = tasks_for(learner, batches).to(dtype=torch.float64)
        parameters = list(learner.parameters())
        whole, chunks = learner.loss(tasks), loss_in_chunks(learner, tasks, 2)
        assert torch.allclose(chunks, whole, rtol=1e-9, atol=1e-9)
        expected, got = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (whole, chunks))
        assert [value is None for value in got] == [value is None for value in expected]
        for value, right in zip(got, expected, strict=True):
            assert right is None or torch.allclose(value, right, rtol=1e-9, atol=1e-9)

    def test_saved_and_loaded_it_says_the_same(self, name: str, batches: dict[str, Explanations], tmp_path: Path) -> None:
        learner = build(name)
        learner.save(tmp_path / "mine")
        loaded = load_learner(tmp_path / "mine", learner.kind)
        tasks = tasks_for(learner, batches)
        expected = learner.predict(learner.adapt(tasks.support), tasks.query.evidence)
        assert torch.equal(loaded.predict(loaded.adapt(tasks.support), tasks.query.evidence), expected)

    def test_works_without_gradients_and_in_inference_mode(self, name: str, batches: dict[str, Explanations]) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert learner.predict(learner.adapt(tasks.support), tasks.query.evidence).isfinite().all()


def test_shipped_learners_load_and_fit_the_kind() -> None:
    for kind in ("shapley", "path"):
        assert {"zero-shot", "ridge"} <= set(list_learners(kind))
        assert load_learner(None, kind).kind == kind


def test_what_cannot_be_loaded_says_why(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no learner 'nonsense'"):
        load_learner("nonsense")
    build("zero-shot path").save(tmp_path / "path")
    with pytest.raises(ValueError, match="predicts path attributions, but shapley"):
        load_learner(tmp_path / "path")
    (tmp_path / "path.safetensors").write_bytes(b"broken")
    with pytest.raises(ValueError, match="cannot be read"):
        load_learner(tmp_path / "path", "path")
    text = (tmp_path / "path.json").read_text()
    (tmp_path / "path.json").write_text(text.replace('"evidence_version": 1', '"evidence_version": 0'))
    with pytest.raises(ValueError, match="version 0"):
        load_learner(tmp_path / "path", "path")
