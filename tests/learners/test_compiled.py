"""Compiled training steps against eager ones."""

import pytest
import torch
from lightning import Trainer
from torch import Tensor
from torch.utils.data import DataLoader

import captum_meta.optim.compiled
from captum_meta.benchmark.step import random_tasks
from captum_meta.learners import ANIL, MAML, ImplicitMAML, MetaLearner, MomentumMAML, Reptile, Ridge
from captum_meta.nn import PathExplainer, ShapleyExplainer
from captum_meta.optim import (
    Annealed,
    Backprop,
    FirstOrder,
    Hypergradient,
    Implicit,
    MultiStepLoss,
    PersistentES,
    Segmented,
    Truncated,
)
from captum_meta.training import MetaLearningModule
from captum_meta.training.chunks import loss_in_chunks


@pytest.fixture
def traced_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same graphs, forward and backward, run by PyTorch's own kernels."""
    whole = torch.compile
    monkeypatch.setattr(
        captum_meta.optim.compiled.torch, "compile", lambda *args, **rest: whole(*args, **rest, backend="aot_eager")
    )


def explainer() -> ShapleyExplainer:
    made, generator = ShapleyExplainer(8, 1), torch.Generator().manual_seed(0)
    for parameter in made.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return made


def loss_and_gradients(learner: MetaLearner, seed: int, tasks: int = 3) -> list[Tensor]:
    loss = learner.loss(random_tasks(seed)[:tasks].to(dtype=torch.float64))
    return [loss, *torch.autograd.grad(loss, list(learner.parameters()), allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize(
    ("make", "hypergradient"),
    [
        pytest.param(ANIL, Backprop(), marks=pytest.mark.slow),
        pytest.param(ANIL, FirstOrder(), marks=pytest.mark.slow),
        pytest.param(ANIL, Truncated(1), marks=pytest.mark.slow),
        pytest.param(ANIL, MultiStepLoss(5), marks=pytest.mark.slow),
        pytest.param(MAML, Backprop(), marks=pytest.mark.slow),
        pytest.param(MAML, FirstOrder(), marks=pytest.mark.slow),
        pytest.param(Reptile, None, marks=pytest.mark.slow),
    ],
)
def test_graphs_of_a_batchs_shape_compute_the_eager_step(
    make: type[MAML], hypergradient: Hypergradient | None, traced_only: None
) -> None:
    eager, graphs = (make(explainer(), steps=2, rate=0.05, hypergradient=hypergradient).double() for _ in range(2))
    graphs.compile()
    for seed, tasks in ((0, 3), (1, 3), (1, 2)):
        for got, right in zip(loss_and_gradients(graphs, seed, tasks), loss_and_gradients(eager, seed, tasks), strict=True):
            assert torch.allclose(got, right, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_graphs_follow_the_order_of_derivatives(traced_only: None) -> None:
    graphs = ANIL(explainer(), steps=2, rate=0.05, hypergradient=Annealed(FirstOrder(), Backprop(), 1)).double()
    graphs.compile()
    for number, order in enumerate((FirstOrder(), Backprop())):
        graphs.begin_step(number)
        eager = ANIL(explainer(), steps=2, rate=0.05, hypergradient=order).double()
        for got, right in zip(loss_and_gradients(graphs, 0), loss_and_gradients(eager, 0), strict=True):
            assert torch.allclose(got, right, rtol=1e-9, atol=1e-9)


def test_graphs_run_a_chunk_of_tasks_at_a_time(traced_only: None) -> None:
    eager, graphs = (ANIL(explainer(), steps=1, rate=0.05).double() for _ in range(2))
    graphs.compile()
    tasks = random_tasks()[:4].to(dtype=torch.float64)
    for loss in (eager.loss(tasks), loss_in_chunks(graphs, tasks, 2)):
        loss.backward()
    for right, got in zip(eager.parameters(), graphs.parameters(), strict=True):
        assert right.grad is None or torch.allclose(got.grad, right.grad, rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_compiled_training_is_eager_training() -> None:
    """In double precision: in single, Adam makes a step of what rounding leaves of a gradient of nearly 0."""
    learners = []
    for compile in (False, True):
        learner = ANIL(explainer(), steps=2, rate=0.05).double()
        module = MetaLearningModule(learner, learning_rate=1e-2, warmup_steps=0, compile=compile)
        data = DataLoader([random_tasks(seed)[:3].to(dtype=torch.float64) for seed in range(4)], batch_size=None)
        Trainer(max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False).fit(
            module, data
        )
        learners.append(learner)
    for eager, graphs in zip(*[learner.parameters() for learner in learners], strict=True):
        assert torch.allclose(eager, graphs, rtol=0, atol=1e-8)


@pytest.mark.parametrize(
    ("learner", "why"),
    [
        (lambda: MAML(PathExplainer(8, 1)), "PathExplainer"),
        (lambda: ImplicitMAML(explainer()), "proximal term"),
        (lambda: Ridge(explainer()), "only gradient-based"),
        (lambda: MAML(explainer(), hypergradient=Segmented()), "Segmented keeps the graph"),
        (lambda: MomentumMAML(explainer()), "Reversible keeps the graph"),
        (lambda: MAML(explainer(), hypergradient=Annealed(FirstOrder(), Segmented(), 9)), "Annealed keeps the graph"),
        (lambda: MAML(explainer(), hypergradient=Implicit()), "Implicit keeps the graph"),
        (lambda: MAML(explainer(), hypergradient=PersistentES(2)), "PersistentES runs its inner loops side by side"),
        (
            lambda: MAML(explainer(), hypergradient=Annealed(FirstOrder(), PersistentES(2), 9)),
            "Annealed runs its inner loops side by side",
        ),
    ],
)
def test_what_cannot_be_compiled_is_refused(learner, why: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=why):
        MetaLearningModule(learner(), compile=True)
