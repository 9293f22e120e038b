"""The inner loop of any module against loops over tasks written out, and the sines of the MAML paper."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from captum_meta.optim import ElementwiseSGD, FirstOrder, GradientDescent, InnerLoop

TASKS, RATE = 3, 0.05


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1))


def convolution() -> nn.Module:
    return nn.Sequential(nn.Unflatten(1, (1, 2)), nn.Conv1d(1, 3, 2), nn.Tanh(), nn.Flatten(), nn.Linear(3, 1))


def rows(seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(TASKS, 5, 2, generator=generator, dtype=torch.float64)
    return x, torch.randn(TASKS, 5, 1, generator=generator, dtype=torch.float64)


def written_out(
    net: nn.Module, support: tuple[Tensor, Tensor], query: tuple[Tensor, Tensor], steps: int, order: int
) -> Tensor:
    """MAML as in its paper: one task after another, one step after another."""
    total = torch.zeros((), dtype=torch.float64)
    for task in range(TASKS):
        weights = dict(net.named_parameters())
        for _ in range(steps):
            loss = nn.functional.mse_loss(functional_call(net, weights, (support[0][task],)), support[1][task])
            gradients = torch.autograd.grad(loss, list(weights.values()), create_graph=order == 2)
            weights = {n: w - RATE * g for (n, w), g in zip(weights.items(), gradients, strict=True)}
        total = total + nn.functional.mse_loss(functional_call(net, weights, (query[0][task],)), query[1][task])
    return total / TASKS


@pytest.mark.parametrize("make", [mlp, convolution])
@pytest.mark.parametrize("order", [1, 2])
def test_maml_of_any_module_is_the_loop_written_out(make, order: int) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    net = make().double()
    hypergradient = FirstOrder() if order == 1 else None
    loop = InnerLoop(net, nn.functional.mse_loss, GradientDescent(RATE), steps=3, hypergradient=hypergradient)
    support, query = rows(1), rows(2)
    found, right = loop.meta_loss(support, query), written_out(net, support, query, 3, order)
    assert torch.allclose(found, right, rtol=1e-12)
    gradients = [torch.autograd.grad(loss, list(net.parameters())) for loss in (found, right)]
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_adapting_lowers_the_loss_and_leaves_the_module_as_it_was() -> None:
    torch.manual_seed(0)
    net = mlp().double()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    loop = InnerLoop(net, nn.functional.mse_loss, GradientDescent(0.2), steps=1)
    support = rows(3)
    errors = [float((loop(loop.adapt(support, steps), support[0]) - support[1]).square().mean()) for steps in (0, 20, 200)]
    assert errors[2] < 0.7 * errors[1] < 0.7 * errors[0]
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    with torch.no_grad():
        assert not any(value.requires_grad for value in loop.adapt(support).values())


def test_only_fast_parameters_move() -> None:
    net = mlp().double()
    loop = InnerLoop(net, nn.functional.mse_loss, ElementwiseSGD({"2.bias": torch.Size([1])}, 0.1).double(), fast=["2.b*"])
    assert list(loop.adapt(rows(4))) == ["2.bias"]
    loop.meta_loss(rows(4), rows(5)).backward()
    assert all(value.grad is not None for value in loop.parameters())
    with pytest.raises(ValueError, match=r"fits fast='head\.\*'"):
        InnerLoop(net, nn.functional.mse_loss, GradientDescent(0.1), fast=["head.*"])


def sines(tasks: int, rows: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Amplitudes from .1 to 5, phases from 0 to pi, x from -5 to 5 (Finn et al. 2017, section 5.1)."""
    amplitude, phase, x = (torch.rand(tasks, n, 1, generator=generator) for n in (1, 1, rows))
    x = 10 * x - 5
    return x, (0.1 + 4.9 * amplitude) * torch.sin(x - torch.pi * phase)


@pytest.mark.slow
def test_few_shot_sines_are_within_the_figures_of_the_paper() -> None:
    """10 rows, one step of rate .01: MAML's error is .77 (Li et al. 2017, table 1, run on its authors' code)."""
    torch.manual_seed(0)
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(1, 40), nn.ReLU(), nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 1))
    loop = InnerLoop(net, nn.functional.mse_loss, GradientDescent(0.01))
    optimizer = torch.optim.Adam(loop.parameters(), 1e-3)
    for _ in range(8000):
        x, y = sines(25, 20, generator)
        optimizer.zero_grad()
        loop.meta_loss((x[:, :10], y[:, :10]), (x[:, 10:], y[:, 10:])).backward()
        optimizer.step()
    x, y = sines(1000, 110, torch.Generator().manual_seed(1))
    errors = [
        float((loop(loop.adapt((x[:, :10], y[:, :10]), steps), x[:, 10:]) - y[:, 10:]).square().mean())
        for steps in (0, 1, 10)
    ]
    assert errors[0] > 2.5 and errors[1] < 0.77 and errors[2] < 0.5 * errors[1]
