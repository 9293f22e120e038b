"""Hypergradients that go by the number of the outer step, derived again in the plainest way."""

import pytest
import torch
from torch import Tensor

from captum_meta.optim import SGD, Annealed, Backprop, FirstOrder, Hypergradient, InnerProblem, MultiStepLoss, Tensors

STEPS = 3


def inner(parameters: Tensors) -> Tensor:
    return (parameters["a"].sin() - 0.3 * parameters["a"]).square().sum()


def outcome(parameters: Tensors) -> Tensor:
    return parameters["a"].cos().sum()


def beginning() -> Tensor:
    return torch.tensor([[0.4, -0.7], [1.1, 0.2]], dtype=torch.float64).requires_grad_()


def found(way: Hypergradient, number: int, steps: int = STEPS) -> tuple[Tensor, Tensor]:
    """The loss and its gradient at outer step ``number``."""
    way.begin_step(number)
    start = beginning()
    loss = way.loss(InnerProblem(inner, SGD(["a"], 3, 0.2).double(), steps), {"a": start}, outcome)
    return loss.detach(), torch.autograd.grad(loss, start)[0]


def plain(weights: list[float], second_order: bool) -> tuple[Tensor, Tensor]:
    start = value = beginning()
    loss = torch.zeros((), dtype=torch.float64)
    for weight in weights:
        (gradient,) = torch.autograd.grad(inner({"a": value}), value, create_graph=second_order)
        value = value - 0.2 * gradient
        loss = loss + weight * outcome({"a": value})
    return loss.detach(), torch.autograd.grad(loss, start)[0]


@pytest.mark.parametrize("second_order", [True, False])
@pytest.mark.parametrize(
    ("number", "weights"),
    [(0, [1 / 3, 1 / 3, 1 / 3]), (6, [0.2, 0.2, 0.6]), (15, [0.0, 0.0, 1.0]), (99, [0.0, 0.0, 1.0])],
)
def test_the_loss_after_every_step_is_annealed_to_the_last(number: int, weights: list[float], second_order: bool) -> None:
    got = found(MultiStepLoss(15, second_order), number)
    for value, right in zip(got, plain(weights, second_order), strict=True):
        assert torch.allclose(value, right, rtol=1e-6, atol=1e-7)


def test_weights_that_are_annealed_away_cost_no_evaluation() -> None:
    way, calls = MultiStepLoss(10), []
    for number in (0, 10):
        way.begin_step(number)
        start, before = {"a": beginning()}, len(calls)
        way.loss(InnerProblem(inner, SGD(["a"], 3, 0.2), 3), start, lambda end: calls.append(end) or outcome(end))  # type: ignore[func-returns-value]
        assert len(calls) - before == (3, 1)[number == 10]


def test_no_inner_steps_leave_the_outcome_of_the_start() -> None:
    assert torch.equal(found(MultiStepLoss(10), 0, steps=0)[0], outcome({"a": beginning()}).detach())


@pytest.mark.parametrize(("number", "second_order"), [(0, False), (3, False), (4, True), (100, True)])
def test_derivatives_are_of_first_order_first(number: int, second_order: bool) -> None:
    loss, gradient = found(Annealed(FirstOrder(), Backprop(), 4), number)
    right, expected = plain([0.0, 0.0, 1.0], second_order)
    assert torch.allclose(loss, right, rtol=1e-6) and torch.allclose(gradient, expected, rtol=1e-6, atol=1e-7)
    other = plain([0.0, 0.0, 1.0], not second_order)[1]
    assert not torch.allclose(gradient, other, rtol=1e-2)


def test_both_are_annealed_together() -> None:
    way = Annealed(MultiStepLoss(20, second_order=False), MultiStepLoss(20), 5)
    for number, second_order in ((4, False), (10, True)):
        early = (1 - number / 20) / 3
        right = plain([early, early, 1 - 2 * early], second_order)
        for value, expected in zip(found(way, number), right, strict=True):
            assert torch.allclose(value, expected, rtol=1e-6, atol=1e-7)


def test_weights_over_no_steps_are_refused() -> None:
    with pytest.raises(ValueError, match="outer_steps=0: pass a number of at least 1"):
        MultiStepLoss(0)
