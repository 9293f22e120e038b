"""Inner loops derived again as plain loops over tasks, steps and tensors."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_meta.learners import ANIL, MAML, GradientLearner, ImplicitMAML, MetaSGD, MomentumMAML, Reptile
from captum_meta.learners._correction import judge
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer, PathExplainer, Prior, ShapleyExplainer
from captum_meta.optim import (
    SGD,
    Annealed,
    Backprop,
    FirstOrder,
    Hypergradient,
    Implicit,
    InnerProblem,
    MultiStepLoss,
    Segmented,
    Truncated,
    call_per_task,
)
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.data import split
from captum_meta.types import SHAPLEY_POINTS, Evidence, Explanations, ExplanationTask


@pytest.fixture(scope="module")
def tasks() -> dict[str, ExplanationTask]:
    made = {
        "shapley": SyntheticTaskFamily("shapley", tasks_per_batch=3, rows=8, seed=5)[6],
        "path": SyntheticTaskFamily("path", tasks_per_batch=3, rows=8, seed=5).variants(5)[2],
    }
    return {kind: split(batch.to(dtype=torch.float64), 5) for kind, batch in made.items()}


def randomised(explainer: Explainer) -> Explainer:
    generator = torch.Generator().manual_seed(0)
    for parameter in explainer.parameters():
        parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)
    return explainer.double()


def plain_loss(learner: MAML | MetaSGD, tasks: ExplanationTask, steps: int, second_order: bool) -> Tensor:
    """The query loss after the inner loop, a task, a step and a tensor at a time."""
    losses = []
    for index in range(len(tasks.support.attributions)):
        task = tasks[index]
        values = {name: learner.explainer.get_parameter(name) for name in learner.names}
        for step in range(steps):
            predicted = functional_call(learner.explainer, values, (plain_evidence(task.support),)).attributions
            loss = scaled_squared_error(predicted, task.support.attributions, task.support.variance)
            gradients = torch.autograd.grad(loss, list(values.values()), create_graph=second_order)
            length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt()
            rule = learner.rule.rule
            for number, name in enumerate(values):
                rate = (10 * rule.log_rates[step, number]).exp() if isinstance(rule, SGD) else rule.rates[number]
                values[name] = values[name] - rate * gradients[number] / length.clamp(min=1)
        predicted = functional_call(learner.explainer, values, (plain_evidence(task.query),)).attributions
        losses.append(relative_squared_error(predicted, task.query.attributions, task.query.variance))
    return torch.stack(losses).mean()


def plain_evidence(explanations: Explanations) -> Evidence:
    evidence = explanations.evidence
    return Evidence(evidence.effects, evidence.measured, evidence.players, evidence.total, evidence.curve, evidence.points)


def without_coalitions(tasks: ExplanationTask) -> ExplanationTask:
    return ExplanationTask(
        *[
            Explanations(plain_evidence(rows), rows.attributions, rows.variance, rows.labels)
            for rows in (tasks.support, tasks.query)
        ]
    )


def gradients_of(loss: Tensor, module: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss, list(module.parameters()), allow_unused=True, materialize_grads=True))


LEARNERS: dict[str, Callable[..., MAML | MetaSGD]] = {
    "all": lambda **rest: MAML(randomised(ShapleyExplainer(8, 2)), rate=0.05, **rest),
    "path": lambda **rest: MAML(randomised(PathExplainer(8, 1)), rate=0.05, **rest),
    "context and norms": lambda **rest: MAML(
        randomised(ShapleyExplainer(8, 2)), ("encode.2.bias", "*norm.*"), rate=0.05, **rest
    ),
    "head": lambda **rest: ANIL(randomised(ShapleyExplainer(8, 2)), rate=0.05, **rest),
    "readers": lambda **rest: MAML(randomised(PathExplainer(8, 1)), ("head.*", "whole.bias"), rate=0.05, **rest),
    "elementwise": lambda **rest: MetaSGD(randomised(ShapleyExplainer(8, 2)), rate=0.05, **rest),
}


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize("steps", [0, 1, 3])
@pytest.mark.parametrize("name", LEARNERS)
def test_all_tasks_at_once_are_the_plain_loop(
    name: str, steps: int, second_order: bool, tasks: dict[str, ExplanationTask]
) -> None:
    learner = LEARNERS[name](steps=steps, hypergradient=Backprop() if second_order else FirstOrder()).double()
    batch = without_coalitions(tasks[learner.kind])
    loss, plain = learner.loss(batch), plain_loss(learner, batch, steps, second_order)
    assert torch.allclose(loss, plain, rtol=1e-9, atol=1e-9)
    for gradient, expected in zip(gradients_of(loss, learner), gradients_of(plain, learner), strict=True):
        assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-9)


def test_second_order_is_not_first_order(tasks: dict[str, ExplanationTask]) -> None:
    batch = without_coalitions(tasks["shapley"])
    exact, first = (LEARNERS["all"](steps=2, hypergradient=kind).double() for kind in (Backprop(), FirstOrder()))
    assert torch.equal(exact.loss(batch), first.loss(batch))
    differences = [
        (a - b).norm() / a.norm().clamp(min=1e-12)
        for a, b in zip(gradients_of(exact.loss(batch), exact), gradients_of(first.loss(batch), first), strict=True)
    ]
    assert max(differences) > 1e-2


def test_no_steps_are_ordinary_training(tasks: dict[str, ExplanationTask]) -> None:
    batch = without_coalitions(tasks["shapley"])
    learner = LEARNERS["all"](steps=0)
    predicted = learner.explainer(batch.query.evidence).attributions
    ordinary = relative_squared_error(predicted, batch.query.attributions, batch.query.variance)
    for gradient, expected in zip(
        gradients_of(learner.loss(batch), learner.explainer), gradients_of(ordinary, learner.explainer), strict=True
    ):
        assert torch.allclose(gradient, expected, rtol=1e-9, atol=1e-12)


class LinearExplainer(Explainer):
    """phi = effects . w, without any correction: what can be differentiated by hand."""

    kind = "shapley"

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(5, 1, bias=False)

    def prior(self, evidence: Evidence, hidden: Tensor | None = None) -> Prior:
        values = self.head(evidence.effects).squeeze(-1)
        return Prior(values, torch.zeros_like(values), torch.ones_like(evidence.total), evidence.effects)


def mean_square(predicted: Tensor, reference: Tensor, variance: Tensor | None = None) -> Tensor:
    return (predicted - reference).square().mean()


def fitted(learner: GradientLearner, support: Explanations, query: Explanations) -> Tensor:
    """Query predictions after the plain inner loop, differentiable."""
    return call_per_task(learner.explainer, "prior", learner.fit(support), query.evidence).attributions


def linear_rows(seed: int, rows: int) -> Explanations:
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(4, rows, 3, 5, generator=generator, dtype=torch.float64)
    values = torch.randn(4, rows, 3, generator=generator, dtype=torch.float64)
    points = torch.tensor(SHAPLEY_POINTS).double().expand(4, rows, 3)
    ones = torch.ones_like(effects, dtype=torch.bool)
    return Explanations(Evidence(effects, ones, ones[..., 0], values.sum(-1), torch.zeros_like(points), points), values)


def flat(rows: Explanations, task: int) -> tuple[Tensor, Tensor]:
    return rows.evidence.effects[task].reshape(-1, 5), rows.attributions[task].reshape(-1)


def test_the_meta_gradient_of_a_linear_explainer_is_the_closed_form() -> None:
    support, query = linear_rows(0, 6), linear_rows(1, 7)
    learner = MAML(LinearExplainer(), steps=1, rate=0.1, inner_loss=mean_square, clip=None).double()
    loss = mean_square(fitted(learner, support, query), query.attributions)
    (gradient,) = torch.autograd.grad(loss, [learner.explainer.head.weight])
    rate = float((10 * learner.rule.log_rates.detach()).exp())
    expected = torch.zeros(5, dtype=torch.float64)
    for task in range(4):
        (x, y), (z, t) = flat(support, task), flat(query, task)
        curvature = 2 / len(y) * x.T @ x
        start = learner.explainer.head.weight.detach()[0]
        moved = start - rate * (curvature @ start - 2 / len(y) * x.T @ y)
        expected += (torch.eye(5, dtype=torch.float64) - rate * curvature) @ (2 / len(t) * z.T @ (z @ moved - t)) / 4
    assert torch.allclose(gradient[0], expected, rtol=1e-9, atol=1e-9)


def test_the_implicit_gradient_is_the_exact_linear_solve() -> None:
    support, query, strength = linear_rows(0, 6), linear_rows(1, 7), 0.7
    learner = ImplicitMAML(
        LinearExplainer(), steps=400, rate=0.2, strength=strength, hypergradient=Implicit(8), inner_loss=mean_square
    ).double()
    strength = float(learner.log_strength.detach().exp())
    loss = mean_square(fitted(learner, support, query), query.attributions)
    to_start, to_strength = torch.autograd.grad(loss, [learner.explainer.head.weight, learner.log_strength])
    start = learner.explainer.head.weight.detach()[0]
    expected, expected_strength = torch.zeros(5, dtype=torch.float64), 0.0
    for task in range(4):
        (x, y), (z, t) = flat(support, task), flat(query, task)
        system = 2 / len(y) * x.T @ x + strength * torch.eye(5, dtype=torch.float64)
        minimum = torch.linalg.solve(system, 2 / len(y) * x.T @ y + strength * start)
        back = torch.linalg.solve(system, 2 / len(t) * z.T @ (z @ minimum - t) / 4)
        expected += strength * back
        expected_strength -= strength * back @ (minimum - start)
    assert torch.allclose(to_start[0], expected, rtol=1e-9, atol=1e-9)
    assert torch.allclose(to_strength, torch.as_tensor(expected_strength), rtol=1e-9, atol=1e-9)


def test_reptile_moves_the_start_towards_the_ends_of_the_inner_loops(tasks: dict[str, ExplanationTask]) -> None:
    batch = without_coalitions(tasks["shapley"])
    learner = Reptile(randomised(ShapleyExplainer(8, 1)), steps=3, rate=0.05).double()
    learner.loss(batch).backward()
    rows = Explanations.concatenate([batch.support, batch.query], dim=1)
    ends = []
    for index in range(3):
        task = rows[index]
        values = dict(learner.explainer.named_parameters())
        for step in range(3):
            predicted = functional_call(learner.explainer, values, (task.evidence,)).attributions
            loss = scaled_squared_error(predicted, task.attributions, task.variance)
            gradients = torch.autograd.grad(loss, list(values.values()))
            length = torch.stack([gradient.square().sum() for gradient in gradients]).sum().sqrt().clamp(min=1)
            rates = (10 * learner.rule.rule.log_rates[step]).exp() / length
            values = {n: v - r * g for (n, v), r, g in zip(values.items(), rates, gradients, strict=True)}
        ends.append(values)
    for name, parameter in learner.explainer.named_parameters():
        expected = parameter - torch.stack([end[name] for end in ends]).mean(0)
        assert torch.allclose(parameter.grad, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("make", [ANIL, Reptile, MomentumMAML, ImplicitMAML])
def test_what_a_fast_head_reads_is_computed_once(
    make: Callable[..., GradientLearner], tasks: dict[str, ExplanationTask]
) -> None:
    batch, calls = without_coalitions(tasks["shapley"]), []
    learner = make(randomised(ShapleyExplainer(8, 2)), ("head.*",), 3).double()
    learner.explainer.blocks[1].register_forward_hook(lambda *_: calls.append(1))
    learner.loss(batch)
    assert len(calls) == (1 if make is Reptile else 2)
    state = learner.adapt(batch.support)
    learner.predict(state, batch.query.evidence)
    assert len(calls) == (3 if make is Reptile else 4)


class RecomputedExplainer(ShapleyExplainer):
    """Does not tell its hidden units from what reads them."""

    reading = ()


@pytest.mark.parametrize(
    "hypergradient",
    [
        Implicit(),
        Segmented(),
        Truncated(2),
        Truncated(2, second_order=False),
        MultiStepLoss(9),
        MultiStepLoss(9, second_order=False),
        Annealed(FirstOrder(), Backprop(), 1),
        Annealed(Backprop(), FirstOrder(), 1),
    ],
    ids=lambda hypergradient: type(hypergradient).__name__,
)
def test_hidden_units_computed_once_have_the_same_gradient(
    hypergradient: Hypergradient, tasks: dict[str, ExplanationTask]
) -> None:
    batch = without_coalitions(tasks["shapley"])
    found = []
    for kind in (ShapleyExplainer, RecomputedExplainer):
        learner = ANIL(randomised(kind(8, 2)), steps=3, rate=0.05, hypergradient=hypergradient).double()
        loss = learner.loss(batch)
        found.append([loss, *gradients_of(loss, learner)])
    for once, again in zip(*found, strict=True):
        assert torch.allclose(once, again, rtol=1e-9, atol=1e-9)


def test_a_pattern_that_fits_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="No parameter of the explainer fits fast='tail"):
        MAML(ShapleyExplainer(8, 1), fast=("tail.*",))


def test_the_loss_before_adaptation_may_be_trained_too(tasks: dict[str, ExplanationTask]) -> None:
    batch = without_coalitions(tasks["shapley"])
    plain, both = LEARNERS["head"](steps=2), LEARNERS["head"](steps=2, zero_shot=0.5)
    before = LEARNERS["head"](steps=0).loss(batch)
    assert torch.allclose(both.loss(batch), plain.loss(batch) + 0.5 * before, rtol=1e-9)


def test_adapt_is_the_chosen_iterate_and_the_chosen_share(tasks: dict[str, ExplanationTask]) -> None:
    """With folds dealt out by hand, every inner loop run alone."""
    batch = without_coalitions(tasks["shapley"])
    learner = LEARNERS["all"](steps=2).double()
    state = learner.adapt(batch.support)
    for index in range(3):
        support = batch.support[index]
        order = support.evidence.total.argsort()
        corrections = torch.zeros(3, 5, support.attributions.shape[-1], dtype=torch.float64)
        base = learner.explainer(support.evidence).attributions
        for fold in range(4):
            out = order[fold::4]
            rest = support[torch.tensor([row for row in range(5) if row not in out.tolist()])]
            for steps in (1, 2):
                fast = alone(learner, rest, steps)
                predicted = functional_call(learner.explainer, fast, (support.evidence[out],)).attributions
                corrections[steps, out] = predicted - base[out]
        choice, _ = judge(corrections, support.attributions - base)
        assert torch.allclose(state.strength[index], choice.strength, rtol=1e-7, atol=1e-9)
        expected = alone(learner, support, int(choice.option))
        assert all(torch.allclose(state.fast[name][index], value, rtol=1e-7, atol=1e-9) for name, value in expected.items())
    assert state.strength.sum() > 0


def alone(learner: GradientLearner, rows: Explanations, steps: int) -> dict[str, Tensor]:
    start = learner.start(1)
    problem = learner.problem(rows.map(lambda value: value.unsqueeze(0)), start)
    fast = FirstOrder().solve(InnerProblem(problem.loss, problem.rule, steps), start)
    return {name: value[0].detach() for name, value in fast.items()}


def test_the_choice_is_the_best_cautious_share_on_left_out_rows() -> None:
    generator = torch.Generator().manual_seed(0)
    residual = torch.randn(2, 9, 4, generator=generator, dtype=torch.float64)
    noise = torch.randn(3, 2, 9, 4, generator=generator, dtype=torch.float64)
    corrections = torch.stack([noise[0], residual + 0.5 * noise[1], 0.3 * residual + noise[2]])
    choice, _ = judge(corrections, residual, 0.0)
    for task in range(2):
        grid = [
            (float((residual[task] - share * corrections[option, task]).square().sum()), option, share)
            for option in range(3)
            for share in torch.linspace(0, 1, 1001).tolist()
        ]
        _, option, share = min(grid)
        assert int(choice.option[task]) == option
        assert float(choice.strength[task]) == pytest.approx(share, abs=1e-3)
    cautious, _ = judge(corrections, residual, 1.0)
    assert (cautious.strength < choice.strength).all()
    assert (judge(noise[:1] * 0, residual)[0].strength == 0).all()


def test_one_support_row_changes_nothing(tasks: dict[str, ExplanationTask]) -> None:
    batch = without_coalitions(tasks["shapley"])
    learner = LEARNERS["head"](steps=2).double()
    adapted = learner.predict(learner.adapt(batch.support[:, :1]), batch.query.evidence)
    assert torch.equal(adapted, learner.predict(None, batch.query.evidence))
