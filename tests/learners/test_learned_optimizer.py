"""The learned optimizer's inner loop and meta-loss, derived again."""

import pytest
import torch
from torch import Tensor
from torch.func import functional_call

from captum_meta.learners import LearnedOptimizer
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import ShapleyExplainer
from captum_meta.optim import Backprop, FirstOrder, Hypergradient, PersistentES, Truncated
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.data import split
from captum_meta.types import ExplanationTask


@pytest.fixture(scope="module")
def tasks() -> ExplanationTask:
    batch = SyntheticTaskFamily("shapley", tasks_per_batch=2, rows=8, seed=5)[6].without_coalitions()
    return split(batch.to(dtype=torch.float64), 5)


def learner(rule: str, hypergradient: Hypergradient, steps: int = 4) -> LearnedOptimizer:
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    made = LearnedOptimizer(
        ShapleyExplainer(8, 1), ("head.*", "norm.*"), steps, 0.05, hypergradient=hypergradient, rule=rule
    )  # type: ignore[arg-type]
    for name, parameter in made.named_parameters():
        size = 0.02 if "log_factors" in name else 0.1
        parameter.data = parameter.data + size * torch.randn(parameter.shape, generator=generator)
    return made.double()


def plain_losses(learner: LearnedOptimizer, task: ExplanationTask) -> list[Tensor]:
    """The query loss after every step of one task alone."""
    explainer = learner.explainer
    values = {name: explainer.get_parameter(name).detach().unsqueeze(0) for name in learner.names}
    memory, losses = learner.rule.initial_memory(values), []
    for step in range(learner.steps):
        alone = {name: value[0].detach().requires_grad_() for name, value in values.items()}
        predicted = functional_call(explainer, alone, (task.support.evidence,)).attributions
        loss = scaled_squared_error(predicted, task.support.attributions, task.support.variance)
        gradients = torch.autograd.grad(loss, list(alone.values()))
        by_name = {name: g.unsqueeze(0) for name, g in zip(alone, gradients, strict=True)}
        values, memory = learner.rule.update(step, values, by_name, memory)
        predicted = functional_call(explainer, {n: v[0] for n, v in values.items()}, (task.query.evidence,)).attributions
        losses.append(relative_squared_error(predicted, task.query.attributions, task.query.variance))
    return losses


@pytest.mark.parametrize("rule", ["mlp", "lstm"])
def test_the_meta_loss_judges_the_loop_where_windows_end(rule: str, tasks: ExplanationTask) -> None:
    trained = learner(rule, Truncated(2, second_order=False))
    plain = [plain_losses(trained, tasks[index]) for index in range(2)]
    expected = torch.stack([(losses[1] + losses[3]) / 2 for losses in plain]).mean()
    assert torch.allclose(trained.loss(tasks), expected, rtol=1e-9)


@pytest.mark.parametrize("rule", ["mlp", "lstm"])
def test_one_window_is_the_unroll_of_the_real_inner_loop(rule: str, tasks: ExplanationTask) -> None:
    for exact, windows in ((Backprop(), Truncated(4)), (FirstOrder(), Truncated(4, second_order=False))):
        gradients = []
        for hypergradient in (exact, windows):
            trained = learner(rule, hypergradient)
            gradients.append(torch.autograd.grad(trained.loss(tasks), list(trained.rule.parameters())))
        assert all(torch.allclose(a, b, rtol=1e-7, atol=1e-10) for a, b in zip(*gradients, strict=True))


def test_evolution_strategies_give_a_gradient_to_the_rule_alone(tasks: ExplanationTask) -> None:
    trained = learner("mlp", PersistentES(2, pairs=1))
    trained.loss(tasks).backward()
    assert all(p.grad is not None and p.grad.any() for p in trained.rule.parameters())
    assert all(p.grad is None for p in trained.explainer.parameters())


def test_more_steps_than_trained_for_stay_finite(tasks: ExplanationTask) -> None:
    trained = LearnedOptimizer(ShapleyExplainer(8, 1), steps=50).double()
    state = trained.adapt(tasks.support)
    assert trained.predict(state, tasks.query.evidence).isfinite().all()
    assert trained.steps == trained.arguments()["steps"] == 50
