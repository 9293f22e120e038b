"""Hypergradients of long loops: windows, and evolution strategies, on a quadratic whose gradient is known."""

from copy import deepcopy

import pytest
import torch
from torch import Generator, Tensor, nn

from captum_meta._random import row_keys
from captum_meta.optim import Backprop, FirstOrder, InnerProblem, PersistentES, Truncated, UpdateRule


class Descent(UpdateRule):
    """theta <- theta - rate * gradient + pull * memory, with a memory so that windows must hand it on."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.1, dtype=torch.float64))
        self.pull = nn.Parameter(torch.tensor([0.5], dtype=torch.float64))

    def initial_memory(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return {"velocity": torch.zeros_like(parameters["x"])}

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        velocity = self.pull * memory["velocity"] - self.rate * gradients["x"]
        return {"x": parameters["x"] + velocity}, {"velocity": velocity}


CURVATURE = torch.tensor([0.5, 1.0, 2.0], dtype=torch.float64)
TARGET = torch.tensor([0.2, -0.1, 0.3], dtype=torch.float64)


def inner(p: dict[str, Tensor]) -> Tensor:
    return (CURVATURE * p["x"].square()).sum() / 2


def outcome(p: dict[str, Tensor]) -> Tensor:
    return (p["x"] - TARGET).square().mean()


def start() -> dict[str, Tensor]:
    return {"x": torch.tensor([[1.0, 2.0, -1.0], [0.5, -1.0, 1.5]], dtype=torch.float64, requires_grad=True)}


def gradients(hypergradient: Truncated | Backprop | FirstOrder | PersistentES, steps: int) -> tuple[Tensor, list[Tensor]]:
    rule, first = Descent(), start()
    loss = hypergradient.loss(InnerProblem(inner, rule, steps), first, outcome)
    wanted = [rule.rate, rule.pull, first["x"]]
    return loss.detach(), list(torch.autograd.grad(loss, wanted, allow_unused=True, materialize_grads=True))


def ends(rule: Descent, steps: int, length: int, cut: bool) -> list[Tensor]:
    """Where windows end, a step at a time; ``cut``: each window's start is a constant."""
    x, velocity, found = start()["x"], torch.zeros(2, 3, dtype=torch.float64), []
    for step in range(steps):
        velocity = rule.pull * velocity - rule.rate * CURVATURE * x
        x = x + velocity
        if (step + 1) % length == 0 or step + 1 == steps:
            found.append(x)
            x, velocity = (x.detach(), velocity.detach()) if cut else (x, velocity)
    return found


def test_one_window_is_the_full_unroll() -> None:
    for exact, windows in ((Backprop(), Truncated(7)), (FirstOrder(), Truncated(9, second_order=False))):
        value, expected = gradients(exact, 7)
        loss, found = gradients(windows, 7)
        assert torch.allclose(loss, value, rtol=1e-12)
        assert all(torch.allclose(a, b, rtol=1e-9, atol=1e-12) for a, b in zip(found, expected, strict=True))
        assert float(expected[0].abs()) > 1e-3


def test_each_window_takes_its_start_as_a_constant() -> None:
    rule = Descent()
    plain = torch.stack([outcome({"x": end}) for end in ends(rule, 8, 3, cut=True)]).mean()
    loss, found = gradients(Truncated(3), 8)
    expected = torch.autograd.grad(plain, [rule.rate, rule.pull])
    assert torch.allclose(loss, plain, rtol=1e-12)
    assert all(torch.allclose(a, b, rtol=1e-9) for a, b in zip(found, expected, strict=False))
    whole = torch.stack([outcome({"x": end}) for end in ends(rule, 8, 3, cut=False)]).mean()
    assert not torch.allclose(found[1], torch.autograd.grad(whole, [rule.pull])[0], rtol=1e-2)


def test_no_steps_are_the_outcome_of_the_start() -> None:
    for hypergradient in (Truncated(3), PersistentES(3)):
        loss, _ = gradients(hypergradient, 0)
        assert torch.allclose(loss, outcome(start()), rtol=1e-12)


def test_persistent_evolution_strategies_are_unbiased() -> None:
    """Against the exact gradient of the mean over windows; truncation's bias would be far outside the error bars."""
    rule = Descent()
    whole = torch.stack([outcome({"x": end}) for end in ends(rule, 8, 2, cut=False)]).mean()
    exact = torch.stack([g.sum() for g in torch.autograd.grad(whole, [rule.rate, rule.pull])])
    samples = []
    for seed in range(300):
        _, found = gradients(PersistentES(2, pairs=1, sigma=1e-3, seed=seed), 8)
        samples.append(torch.stack([found[0], found[1].sum()]))
        assert not found[2].any()
    estimates = torch.stack(samples)
    error = estimates.std(0) / len(estimates) ** 0.5
    assert ((estimates.mean(0) - exact).abs() < 3 * error).all()
    assert error.norm() < 0.15 * exact.norm()
    truncated = torch.stack([g.sum() for g in gradients(Truncated(2), 8)[1][:2]])
    assert ((truncated - exact).abs() > 4 * error).any()


def one_after_another(es: PersistentES, steps: int) -> tuple[Tensor, list[Tensor]]:
    """The estimate by a loop over pairs, signs, windows and steps, each with a rule of its own."""
    rule = Descent()
    flat = nn.utils.parameters_to_vector(rule.parameters()).detach()
    count = -(-steps // es.length)
    generator = Generator().manual_seed(int(row_keys((flat.unsqueeze(0),))[0] ^ es.seed))
    value, gradient = torch.zeros((), dtype=flat.dtype), torch.zeros_like(flat)
    for _ in range(es.pairs):
        noise = es.sigma * torch.randn(count, len(flat), generator=generator).to(flat)
        ends = []
        for sign in (1, -1):
            fast, memory, losses = start(), {}, []
            for window in range(count):
                moved = deepcopy(rule).requires_grad_(False)
                nn.utils.vector_to_parameters(flat + sign * noise[window], moved.parameters())
                memory = moved.initial_memory(fast) if window == 0 else memory
                for step in range(window * es.length, min((window + 1) * es.length, steps)):
                    slopes = InnerProblem(inner, moved, steps).gradient(fast, create_graph=False)
                    fast, memory = moved.update(step, fast, slopes, memory)
                    fast = {name: each.detach() for name, each in fast.items()}
                losses.append(outcome(fast).detach())
            ends.append(torch.stack(losses))
        value = value + (ends[0] + ends[1]).mean() / (2 * es.pairs)
        gradient = gradient + (ends[0] - ends[1]) / (2 * es.pairs * es.sigma**2 * count) @ noise.cumsum(0)
    return value, [gradient[0], gradient[1:]]


@pytest.mark.parametrize("steps", [1, 6, 7])
def test_loops_side_by_side_are_loops_one_after_another(steps: int) -> None:
    es = PersistentES(3, pairs=2, sigma=0.05, seed=4)
    (value, found), (right, expected) = gradients(es, steps), one_after_another(es, steps)
    assert torch.allclose(value, right, rtol=1e-12)
    for ours, theirs in zip(found[:2], expected, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def test_an_estimate_is_the_formula_and_repeats_itself() -> None:
    hypergradient = PersistentES(3, pairs=2, sigma=0.05, seed=4)
    first, second = gradients(hypergradient, 7), gradients(hypergradient, 7)
    assert all(torch.equal(a, b) for a, b in zip(first[1], second[1], strict=True))
    assert not torch.equal(gradients(PersistentES(3, pairs=2, sigma=0.05, seed=5), 7)[1][0], first[1][0])


def test_evolution_strategies_train_without_a_global_stream() -> None:
    torch.manual_seed(0)
    before = torch.random.get_rng_state()
    rule = Descent()
    optimizer = torch.optim.SGD(rule.parameters(), lr=0.02)
    losses = []
    for _ in range(30):
        loss = PersistentES(2, pairs=4, sigma=0.02).loss(InnerProblem(inner, rule, 8), start(), outcome)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.95 * losses[0]
    assert torch.equal(torch.random.get_rng_state(), before)
