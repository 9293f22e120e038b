"""What holds for every update rule: a new one is a line in the table."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captum_meta.optim import (
    SGD,
    Clipped,
    CoordinatewiseLSTM,
    CoordinatewiseMLP,
    ElementwiseSGD,
    MomentumSGD,
    Preconditioned,
    UpdateRule,
)

SHAPES = {"weight": torch.Size([3, 2]), "bias": torch.Size([3])}
RULES: dict[str, Callable[[], UpdateRule]] = {
    "SGD": lambda: SGD(list(SHAPES), 2, 0.1),
    "elementwise SGD": lambda: ElementwiseSGD(SHAPES, 0.1),
    "SGD with momentum": lambda: MomentumSGD(list(SHAPES), 2, 0.1, 0.9),
    "coordinate-wise MLP": lambda: CoordinatewiseMLP(list(SHAPES)),
    "coordinate-wise LSTM": lambda: CoordinatewiseLSTM(list(SHAPES), width=4),
    "preconditioned": lambda: Preconditioned(CoordinatewiseMLP(list(SHAPES)), SHAPES),
    "clipped": lambda: Clipped(SGD(list(SHAPES), 2, 0.1), 1.0),
}
TASKS, STEPS = 4, 3


def drawn(seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(TASKS, *shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()}


def walk(rule: UpdateRule, tasks: slice = slice(None)) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """A few steps along given gradients, one step more than have rates of their own."""
    parameters = {name: value[tasks] for name, value in drawn(0).items()}
    memory = rule.initial_memory(parameters)
    for step in range(STEPS):
        gradients = {name: value[tasks] for name, value in drawn(step + 1).items()}
        parameters, memory = rule.update(step, parameters, gradients, memory)
    return parameters, memory


@pytest.fixture(params=RULES)
def rule(request: pytest.FixtureRequest) -> UpdateRule:
    torch.manual_seed(0)
    return RULES[request.param]().double()


def test_tasks_together_are_the_tasks_one_by_one(rule: UpdateRule) -> None:
    together, memory = walk(rule)
    for task in range(TASKS):
        alone, its_memory = walk(rule, slice(task, task + 1))
        for name in SHAPES:
            assert torch.allclose(alone[name][0], together[name][task], rtol=1e-9, atol=1e-12)
        for name, value in its_memory.items():
            assert torch.allclose(value[0], memory[name][task], rtol=1e-9, atol=1e-12)


def test_shapes_are_kept_and_nothing_is_changed_in_place(rule: UpdateRule) -> None:
    parameters, gradients = drawn(0), drawn(1)
    memory = rule.initial_memory(parameters)
    before = [{name: value.clone() for name, value in given.items()} for given in (parameters, gradients, memory)]
    moved, later = rule.update(0, parameters, gradients, memory)
    assert {name: value.shape for name, value in moved.items()} == {name: (TASKS, *s) for name, s in SHAPES.items()}
    assert {name: value.shape for name, value in later.items()} == {name: value.shape for name, value in memory.items()}
    for given, copies in zip((parameters, gradients, memory), before, strict=True):
        assert all(torch.equal(value, copies[name]) for name, value in given.items())


def test_what_the_rule_learns_gets_a_gradient(rule: UpdateRule) -> None:
    moved, _ = walk(rule)
    sum(value.square().sum() for value in moved.values()).backward()  # type: ignore[union-attr]
    gradients = [parameter.grad for parameter in rule.parameters()]
    assert gradients and any(g is not None and bool(g.any()) for g in gradients)


def test_a_preconditioner_over_gradient_descent_is_meta_sgd() -> None:
    ours, theirs = Preconditioned(SGD(list(SHAPES), 1, 0.1), SHAPES), ElementwiseSGD(SHAPES, 0.1)
    torch.manual_seed(0)
    for factor, rate in zip(ours.log_factors, theirs.rates, strict=True):
        factor.data.normal_().mul_(0.1)
        rate.data.mul_((10 * factor.data).exp())
    ends = [walk(rule.double())[0] for rule in (ours, theirs)]
    assert all(torch.allclose(ends[0][name], ends[1][name], rtol=1e-6) for name in SHAPES)
    assert not torch.allclose(ends[0]["weight"], walk(SGD(list(SHAPES), 1, 0.1).double())[0]["weight"])
