"""Plain rules are torch's optimizers, and every step of theirs can be differentiated."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captum_meta.optim import Adam, GradientDescent, RMSProp, UpdateRule

PAIRS: dict[str, tuple[UpdateRule, Callable[[list[Tensor]], torch.optim.Optimizer]]] = {
    "gradient descent": (GradientDescent(0.1), lambda p: torch.optim.SGD(p, 0.1)),
    "momentum": (GradientDescent(0.1, 0.9), lambda p: torch.optim.SGD(p, 0.1, momentum=0.9)),
    "RMSProp": (RMSProp(0.02, 0.9), lambda p: torch.optim.RMSprop(p, 0.02, alpha=0.9)),
    "Adam": (Adam(0.05, (0.8, 0.95)), lambda p: torch.optim.Adam(p, 0.05, betas=(0.8, 0.95))),
}


def loss(theta: Tensor) -> Tensor:
    """Of tasks ``(T, 3)``, of which the second coordinate is read by no task."""
    return (theta[:, 0] ** 4 + theta[:, 2].sin() * theta[:, 0]).sum()


def descended(rule: UpdateRule, start: Tensor, steps: int) -> Tensor:
    parameters = {"theta": start}
    memory = rule.initial_memory(parameters)
    for step in range(steps):
        (gradient,) = torch.autograd.grad(loss(parameters["theta"]), parameters["theta"], create_graph=True)
        parameters, memory = rule.update(step, parameters, {"theta": gradient}, memory)
    return parameters["theta"]


@pytest.mark.parametrize("name", PAIRS)
def test_steps_are_those_of_torchs_optimizer(name: str) -> None:
    rule, optimizer = PAIRS[name]
    start = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    theirs = start.clone().requires_grad_()
    stepping = optimizer([theirs])
    for _ in range(6):
        stepping.zero_grad()
        loss(theirs).backward()
        stepping.step()
    assert torch.allclose(descended(rule, start.clone().requires_grad_(), 6), theirs, rtol=1e-9)


@pytest.mark.parametrize("name", PAIRS)
def test_the_derivative_of_the_end_is_that_of_differences(name: str) -> None:
    rule, _ = PAIRS[name]
    start = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).requires_grad_()
    assert torch.autograd.gradcheck(lambda theta: descended(rule, theta, 3)[:, [0, 2]], start)
    (slope,) = torch.autograd.grad(descended(rule, start, 3).sum(), start)
    assert slope[:, 1].eq(1).all()  # no gradient, no step, and no infinite slope of a root


@pytest.mark.parametrize("make", [GradientDescent, RMSProp, Adam])
def test_a_rate_that_is_a_tensor_learns(make: Callable[[Tensor], UpdateRule]) -> None:
    rate = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    start = torch.randn(2, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(2)).requires_grad_()
    end = lambda value: descended(make(value), start, 3).square().sum()  # noqa: E731
    (found,) = torch.autograd.grad(end(rate), rate)
    step = 1e-6
    difference = (end(rate + step) - end(rate - step)).detach() / (2 * step)
    assert torch.allclose(found, difference, rtol=1e-6)
