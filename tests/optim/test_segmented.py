"""Segments computed again against the whole unroll."""

import pytest
import torch
from torch import Tensor, nn

from captum_meta.optim import (
    SGD,
    Backprop,
    Clipped,
    Hypergradient,
    InnerProblem,
    MomentumSGD,
    Segmented,
    Tensors,
    UpdateRule,
)


class Drifting(UpdateRule):
    """Its memory counts steps, and starts at a learned place and from the parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.rate = nn.Parameter(torch.tensor(0.3)), nn.Parameter(torch.tensor(0.1))

    def initial_memory(self, parameters: Tensors) -> Tensors:
        return {"count": torch.zeros(1, dtype=torch.long), "drift": self.first * parameters["a"].sin()}

    def update(self, step: int, parameters: Tensors, gradients: Tensors, memory: Tensors) -> tuple[Tensors, Tensors]:
        drift = memory["drift"].cos() + gradients["a"]
        moved = {n: v - self.rate * (gradients[n] + 0.1 * drift) / memory["count"].add(1) for n, v in parameters.items()}
        return moved, {"count": memory["count"] + 1, "drift": drift}


RULES = {
    "momentum": lambda: MomentumSGD(["a", "b"], 30, 0.05, 0.8),
    "clipped": lambda: Clipped(SGD(["a", "b"], 7, 0.1), 0.5),
    "drifting": Drifting,
}


def solved(way: Hypergradient, rule: UpdateRule, steps: int) -> list[Tensor]:
    """The outcome and all its gradients."""
    generator = torch.Generator().manual_seed(0)
    start = {n: torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_() for n in "ab"}
    slope = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64).requires_grad_()
    evidence = slope.exp()

    def loss(p: Tensors) -> Tensor:
        return ((p["a"] * evidence).tanh() - p["b"]).square().sum() + p["b"].sin().sum()

    end = way.solve(InnerProblem(loss, rule.double(), steps), start)
    learned = [*start.values(), slope, *rule.parameters()]
    outcome = end["a"].square().sum() + (end["b"] * evidence).sum()
    return [*end.values(), *torch.autograd.grad(outcome, learned, allow_unused=True, materialize_grads=True)]


@pytest.mark.parametrize("steps", [0, 1, 3, 16, 30])
@pytest.mark.parametrize("name", RULES)
def test_the_gradient_is_that_of_the_unroll(name: str, steps: int) -> None:
    expected, got = solved(Backprop(), RULES[name](), steps), solved(Segmented(), RULES[name](), steps)
    for right, value in zip(expected, got, strict=True):
        assert torch.allclose(value, right, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("length", [1, 4, 100])
def test_the_length_of_a_segment_changes_nothing(length: int) -> None:
    expected, got = (solved(way, RULES["momentum"](), 13) for way in (Segmented(), Segmented(length)))
    assert all(torch.equal(value, right) for value, right in zip(got, expected, strict=True))


def test_a_parameter_changed_on_the_way_is_noticed() -> None:
    rule = RULES["momentum"]().double()
    start = {n: torch.ones(2, 3, dtype=torch.float64).requires_grad_() for n in "ab"}
    end = Segmented().solve(InnerProblem(lambda p: (p["a"] * p["b"]).square().sum(), rule, 3), start)
    with torch.no_grad():
        rule.logits.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        end["a"].sum().backward()
