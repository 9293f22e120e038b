"""What holds for every learner: one table of them, and one class of checks."""

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
    Stacking,
    TransferGaussianProcess,
    ZeroShot,
    load_learner,
)
from captum_meta.learners._gradient import GradientLearner
from captum_meta.nn import (
    AttentionSimilarity,
    CosineSimilarity,
    InputEncoder,
    LearnedDescent,
    MLPSimilarity,
    PathExplainer,
    ShapleyExplainer,
)
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.chunks import loss_in_chunks
from captum_meta.types import ExplanationTask
from tests.learners.explained_nets import N_PLAYERS, explained_tasks

LEARNERS: dict[str, Callable[[], MetaLearner]] = {
    "zero-shot": lambda: ZeroShot(ShapleyExplainer(16, 1)),
    "zero-shot path": lambda: ZeroShot(PathExplainer(16, 1)),
    "ridge": lambda: Ridge(ShapleyExplainer(16, 1)),
    "ridge path": lambda: Ridge(PathExplainer(16, 1)),
    "kernel-ridge": lambda: KernelRidge(ShapleyExplainer(16, 1)),
    "kernel-ridge path": lambda: KernelRidge(PathExplainer(16, 1)),
    "deep-kernel": lambda: DeepKernelTransfer(ShapleyExplainer(16, 1)),
    "deep-kernel path": lambda: DeepKernelTransfer(PathExplainer(16, 1)),
    "surrogate": lambda: Stacking(DeepKernelTransfer(ShapleyExplainer(16, 1))),
    "surrogate path": lambda: Stacking(DeepKernelTransfer(PathExplainer(16, 1))),
    "surrogate-maml": lambda: Stacking(FeatureMAML(ShapleyExplainer(16, 1)), LearnedDescent(10)),
    "surrogate-maml path": lambda: Stacking(FeatureMAML(PathExplainer(16, 1)), LearnedDescent(10)),
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
    "learned-optimizer lstm": lambda: LearnedOptimizer(PathExplainer(16, 1), ("head.*",), 2, rule="lstm"),
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


Batches = dict[str, ExplanationTask]


@pytest.fixture(scope="module")
def batches() -> Batches:
    """Three tasks of each kind; Shapley queries have their border, or coalitions inside it."""
    path = SyntheticTaskFamily("path", tasks_per_batch=3, rows=10, seed=5).variants(5)[2]
    return {
        "shapley": explained_tasks(2 * N_PLAYERS),
        "shapley inside": explained_tasks(30),
        "path": ExplanationTask(path[:, :6], path[:, 6:]),
    }


def build(name: str) -> MetaLearner:
    torch.manual_seed(0)
    return LEARNERS[name]().eval()


def tasks_for(learner: MetaLearner, batches: Batches, inside: str = "") -> ExplanationTask:
    """The tasks of the learner's kind, with what a front end measures for it alone."""
    tasks = batches[learner.kind + (inside if learner.kind == "shapley" else "")]
    return tasks if learner.reading.evaluations_of(6) else without_elements(tasks)


def every_query(learner: MetaLearner, batches: Batches) -> list[ExplanationTask]:
    return [tasks_for(learner, batches, inside) for inside in (("", " inside") if learner.kind == "shapley" else ("",))]


def without_elements(tasks: ExplanationTask) -> ExplanationTask:
    support, query = tasks.support.evidence, tasks.query.evidence
    return ExplanationTask(
        replace(tasks.support, evidence=replace(support, elements=None, coalitions=None)),
        replace(tasks.query, evidence=replace(query, elements=None)),
    )


class LearnerContract:
    """Checks of the learner ``name`` of the table."""

    def test_predictions_satisfy_efficiency(self, name: str, batches: Batches) -> None:
        learner = build(name)
        for tasks in every_query(learner, batches):
            predicted = learner.predict(learner.adapt(tasks.support), tasks.query.evidence)
            assert predicted.shape == tasks.query.attributions.shape
            assert torch.allclose(predicted.sum(-1), tasks.query.evidence.total, rtol=1e-4, atol=1e-5)

    @pytest.mark.usefixtures("unchecked")
    def test_labels_that_are_no_numbers_and_empty_support_sets_say_so(self, name: str, batches: Batches) -> None:
        learner = build(name)
        support = tasks_for(learner, batches).support
        labels = support.attributions.clone()
        labels[0, 0, 0] = torch.nan
        if not isinstance(learner, ZeroShot):
            with pytest.raises(ValueError, match="attributions of the support set are not finite: leave these rows out"):
                learner.adapt(replace(support, attributions=labels))
            with pytest.raises(ValueError, match="attributions have the shape"):
                learner.adapt(replace(support, attributions=labels[..., :-1]))
        if not isinstance(learner, (ZeroShot, GradientLearner)):  # whose loop of no rows ends where it begins
            with pytest.raises(ValueError, match="the support set is empty: pass at least one row"):
                learner.adapt(support[:, :0])

    def test_it_answers_in_half_and_in_double_precision(self, name: str, batches: Batches) -> None:
        tasks = tasks_for(build(name), batches)
        for precision in (torch.bfloat16, torch.float64):
            learner, given = build(name).to(precision), tasks.to(dtype=precision)
            predicted = learner.predict(learner.adapt(given.support), given.query.evidence)
            assert predicted.isfinite().all()
            assert predicted.dtype == precision or precision == torch.bfloat16  # in which quadratures are made in single

    def test_numbers_of_another_precision_say_so(self, name: str, batches: Batches) -> None:
        for precision in (torch.float64, torch.float16):
            self._refuses(build(name), precision, batches)

    def _refuses(self, learner: MetaLearner, precision: torch.dtype, batches: Batches) -> None:
        tasks = tasks_for(learner, batches)
        state, others = learner.adapt(tasks.support), tasks.to(dtype=precision)
        calls = [
            lambda: learner.predict(state, others.query.evidence),
            lambda: learner.estimate_error(state, others.query.evidence, tasks.query.attributions),
            lambda: learner.explain_with_error(state, others.query.evidence),
            lambda: learner.loss(others),
        ]
        if not isinstance(learner, ZeroShot):
            calls += [
                lambda: learner.adapt(others.support),
                lambda: learner.adapt(replace(tasks.support, attributions=others.support.attributions)),
            ]
        for call in calls:
            with pytest.raises(ValueError, match=rf"computes in torch.float32, and was given numbers in {precision}"):
                call()

    def test_a_player_without_any_effect_gets_nothing(self, name: str, batches: Batches) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        evidence = tasks.query.evidence
        effects = evidence.effects.clone()
        effects[..., 1, :] = 0
        predicted = learner.predict(learner.adapt(tasks.support), replace(evidence, effects=effects))
        assert (predicted[..., 1] == 0).all() and (predicted != 0).any()

    def test_the_state_is_a_record_of_tensors_and_the_meta_parameters_stay(self, name: str, batches: Batches) -> None:
        learner = build(name)
        before = {key: value.clone() for key, value in learner.state_dict().items()}
        state = learner.adapt(tasks_for(learner, batches).support)
        assert (state is None) == isinstance(learner, ZeroShot)
        if state is not None:
            kinds: list[torch.dtype] = []
            state.map(lambda value: kinds.append(value.dtype) or value)  # type: ignore[func-returns-value]
            moved: list[torch.dtype] = []
            state.to(dtype=torch.float64).map(lambda value: moved.append(value.dtype) or value)  # type: ignore[func-returns-value]
            assert moved == [torch.float64 if kind.is_floating_point else kind for kind in kinds]
        assert all(torch.equal(value, before[key]) for key, value in learner.state_dict().items())

    def test_tasks_and_queries_are_explained_alone_as_among_others(self, name: str, batches: Batches) -> None:
        """And support rows have no order: those of a task alone are shuffled."""
        learner = build(name).double()
        for tasks in every_query(learner, batches):
            tasks = tasks.to(dtype=torch.float64)
            state, evidence = learner.adapt(tasks.support), tasks.query.evidence
            together = learner.predict(state, evidence)
            for row in (0, together.shape[1] - 1):
                alone = learner.predict(state, evidence[:, row : row + 1])
                assert torch.allclose(alone[:, 0], together[:, row], rtol=1e-6, atol=1e-9)
            for index in range(3):
                support = tasks[index].support[torch.tensor([3, 0, 5, 1, 4, 2])]
                alone = learner.predict(learner.adapt(support), evidence[index])
                assert torch.allclose(alone, together[index], rtol=1e-6, atol=1e-9)

    def test_the_initial_state_explains(self, name: str, batches: Batches) -> None:
        learner = build(name)
        predicted = learner.predict(learner.initial_state(), tasks_for(learner, batches).query.evidence)
        assert predicted.isfinite().all()

    def test_the_loss_trains(self, name: str, batches: Batches) -> None:
        learner = build(name)
        learner.loss(tasks_for(learner, batches)).backward()
        gradients = [p.grad for p in learner.parameters() if p.grad is not None]
        assert gradients and all(gradient.isfinite().all() for gradient in gradients)

    def test_without_support_rows_it_trains_as_zero_shot_or_says_so(self, name: str, batches: Batches) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        empty = ExplanationTask(tasks.support[:, :0], tasks.query)
        try:
            loss = learner.loss(empty)
        except ValueError as error:
            assert "support set is empty" in str(error) and "--data.support_rows" in str(error)
        else:
            assert torch.equal(loss, ZeroShot(learner.explainer).loss(empty))

    def test_the_gradient_of_chunks_is_that_of_all_tasks(self, name: str, batches: Batches) -> None:
        learner = build(name).double()
        tasks = tasks_for(learner, batches).to(dtype=torch.float64)
        parameters = list(learner.parameters())
        whole, chunks = learner.loss(tasks), loss_in_chunks(learner, tasks, 2)
        assert torch.allclose(chunks, whole, rtol=1e-9, atol=1e-9)
        expected, got = (torch.autograd.grad(loss, parameters, allow_unused=True) for loss in (whole, chunks))
        assert [value is None for value in got] == [value is None for value in expected]
        for value, right in zip(got, expected, strict=True):
            assert right is None or torch.allclose(value, right, rtol=1e-9, atol=1e-9)

    def test_saved_and_loaded_it_says_the_same(self, name: str, batches: Batches, tmp_path: Path) -> None:
        learner = build(name)
        learner.save(tmp_path / "mine")
        loaded = load_learner(tmp_path / "mine", learner.kind)
        weights = loaded.state_dict()
        assert weights.keys() == learner.state_dict().keys()
        assert all(torch.equal(value, weights[key]) for key, value in learner.state_dict().items())
        tasks = tasks_for(learner, batches)
        expected = learner.predict(learner.adapt(tasks.support), tasks.query.evidence)
        found = loaded.predict(loaded.adapt(tasks.support), tasks.query.evidence)
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-6)  # not all memory is added up in the same order

    def test_works_without_gradients_and_in_inference_mode(self, name: str, batches: Batches) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        for mode in (torch.no_grad, torch.inference_mode):
            with mode():
                assert learner.predict(learner.adapt(tasks.support), tasks.query.evidence).isfinite().all()
