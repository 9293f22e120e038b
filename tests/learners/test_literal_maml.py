"""MAML as its paper has it: nothing is clipped, and the outer loss is a choice."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from captum_meta import losses
from captum_meta.learners import MAML
from captum_meta.learners.storage import shipped_explainer
from captum_meta.nn import ShapleyExplainer
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.data import split
from captum_meta.types import ExplanationTask

RATE, STEPS = 0.02, 2


@pytest.fixture(scope="module")
def tasks() -> ExplanationTask:
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=8, seed=5)[6].to(dtype=torch.float64)
    return split(rows.without_coalitions(), 5)


def written_out(learner: MAML, tasks: ExplanationTask) -> Tensor:
    """theta' = theta - rate * gradient, a task after another; then the mean squared error of the query rows."""
    explainer, total = learner.explainer, torch.zeros((), dtype=torch.float64)
    for index in range(2):
        support, query = tasks[index].support, tasks[index].query
        theta = dict(explainer.named_parameters())
        for _ in range(STEPS):
            missed = functional_call(explainer, theta, (support.evidence,)).attributions - support.attributions
            loss = missed.square().sum() / support.attributions.square().sum()
            gradients = torch.autograd.grad(loss, list(theta.values()), create_graph=True)
            theta = {name: value - RATE * slope for (name, value), slope in zip(theta.items(), gradients, strict=True)}
        missed = functional_call(explainer, theta, (query.evidence,)).attributions - query.attributions
        total = total + missed.square().mean() / 2
    return total


def test_the_literal_form_is_the_loop_of_the_paper(tasks: ExplanationTask) -> None:
    torch.manual_seed(0)
    learner = MAML(ShapleyExplainer(8, 1), ("*",), STEPS, RATE, outer_loss="mean_squared_error", clip=None).double()
    known = ExplanationTask(*(replace(rows, variance=None) for rows in (tasks.support, tasks.query)))
    trained = list(learner.explainer.parameters())
    found, right = learner.loss(known), written_out(learner, known)
    assert torch.allclose(found, right, rtol=1e-6)  # rates are exponentials of single-precision logarithms
    gradients = [torch.autograd.grad(loss, trained) for loss in (found, right)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-9 + 1e-6 * float(theirs.abs().max()))


def test_without_a_bound_long_gradients_are_followed(tasks: ExplanationTask) -> None:
    torch.manual_seed(0)
    explainer = ShapleyExplainer(8, 1).double()
    moved = [
        sum(
            float((end - explainer.get_parameter(name)).detach().square().sum())
            for name, end in MAML(explainer, steps=1, clip=clip).double().fit(tasks.support).items()
        )
        for clip in (1e-3, 1e-2, None)
    ]
    assert moved[0] < moved[1] < moved[2]


@pytest.mark.parametrize("name", ["mean_squared_error", "importance_cross_entropy", "cosine_and_magnitude"])
def test_the_outer_loss_is_what_training_minimises(name: str, tasks: ExplanationTask) -> None:
    learner = MAML(ShapleyExplainer(8, 1), steps=0, zero_shot=0.5, outer_loss=name).double()  # type: ignore[arg-type]
    query = tasks.query
    before = learner.explainer(query.evidence).attributions
    assert torch.allclose(learner.loss(tasks), 1.5 * getattr(losses, name)(before, query.attributions, query.variance))


def test_a_shipped_explainer_may_be_the_start() -> None:
    assert all(p.requires_grad for p in MAML(shipped_explainer(requires_grad=True)).parameters())
    assert not any(p.requires_grad for p in shipped_explainer().parameters())


@pytest.mark.parametrize("rate", [10.0, 1e4])
def test_inner_loops_that_diverge_are_not_taken(rate: float, tasks: ExplanationTask) -> None:
    torch.manual_seed(0)
    learner = MAML(ShapleyExplainer(8, 1), steps=8, rate=rate, clip=None).eval()
    rows = tasks.to(dtype=torch.float32)
    ends = learner.fit(rows.support)
    assert not all(value.isfinite().all() for value in ends.values()) or rate < 1e3
    found = learner.predict(learner.adapt(rows.support), rows.query.evidence)
    start = learner.predict(None, rows.query.evidence)
    right = rows.query.attributions
    assert found.isfinite().all()
    assert (found - right).norm() <= 1.5 * (start - right).norm()
