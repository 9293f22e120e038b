"""Learned update rules, a coordinate at a time and against PyTorch's own modules."""

import math

import pytest
import torch
from torch import Tensor, nn

from captum_meta.optim import CoordinatewiseLSTM, CoordinatewiseMLP, UpdateRule
from captum_meta.optim.coordinatewise_lstm import log_sign, lstm_cell
from captum_meta.optim.flat import Layout

SHAPES = {"weight": (3, 2), "bias": (4,), "number": ()}
RULES = {
    "mlp": lambda: CoordinatewiseMLP(list(SHAPES), width=5, rate=0.1),
    "lstm": lambda: CoordinatewiseLSTM(list(SHAPES), width=3, layers=2, rate=0.1),
}


def random_tensors(seed: int, tasks: int = 2, factor: float = 1.0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: factor * torch.randn(tasks, *shape, generator=generator, dtype=torch.float64) for name, shape in SHAPES.items()
    }


def randomised(rule: UpdateRule) -> UpdateRule:
    generator = torch.Generator().manual_seed(1)
    for parameter in rule.parameters():
        parameter.data = parameter.data + 0.3 * torch.randn(parameter.shape, generator=generator)
    return rule.double()


def run(rule: UpdateRule, start: dict[str, Tensor], steps: int) -> dict[str, Tensor]:
    """The rule on a loss whose curvature differs from coordinate to coordinate."""
    values, memory = start, rule.initial_memory(start)
    for step in range(steps):
        gradients = {name: (index + 1) * torch.sin(value) for index, (name, value) in enumerate(values.items())}
        values, memory = rule.update(step, values, gradients, memory)
    return values


def test_a_layout_gives_back_what_it_was_given() -> None:
    tensors = random_tensors(0)
    layout = Layout.of(tensors)
    flat = layout.flatten(tensors)
    assert flat.shape == (2, 11)
    assert all(torch.equal(value, tensors[name]) for name, value in layout.unflatten(flat).items())
    rms = layout.rms(flat, 0.1)
    assert torch.allclose(rms[1, 0], (tensors["weight"][1].square().mean() + 0.01).sqrt())
    assert torch.equal(layout.repeat(rms)[:, 6:10], rms[:, 1:2].expand(2, 4))


@pytest.mark.parametrize("name", RULES)
def test_all_tasks_at_once_are_the_tasks_one_by_one(name: str) -> None:
    rule, start = randomised(RULES[name]()), random_tensors(2)
    together = run(rule, start, 4)
    for task in range(2):
        alone = run(rule, {n: v[task : task + 1] for n, v in start.items()}, 4)
        assert all(torch.allclose(together[n][task], alone[n][0], rtol=1e-9, atol=1e-12) for n in SHAPES)


@pytest.mark.parametrize("name", RULES)
def test_the_order_of_tensors_and_coordinates_does_not_matter(name: str) -> None:
    rule, start = randomised(RULES[name]()), random_tensors(2)
    moved = run(rule, start, 3)
    order = torch.tensor([2, 0, 3, 1])
    shuffled = run(rule, {**start, "bias": start["bias"][:, order]}, 3)
    assert torch.allclose(shuffled["bias"], moved["bias"][:, order], rtol=1e-9, atol=1e-12)
    assert torch.allclose(shuffled["weight"], moved["weight"], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
def test_rules_may_be_differentiated_twice_and_vectorised(name: str) -> None:
    rule, start = randomised(RULES[name]()), random_tensors(2)

    def end(weight: Tensor) -> Tensor:
        return run(rule, {**start, "weight": weight}, 3)["weight"].square().sum()

    assert torch.autograd.gradgradcheck(end, start["weight"].clone().requires_grad_(), atol=1e-6)

    def one(weight: Tensor) -> Tensor:
        return end(weight.unsqueeze(0).expand(2, -1, -1))

    mapped = torch.func.vmap(torch.func.grad(one))(start["weight"])
    assert torch.allclose(mapped[1], torch.func.grad(one)(start["weight"][1]), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", RULES)
@pytest.mark.parametrize("gradient", [0.0, 1e-20, 1e15])
def test_extreme_gradients_give_finite_steps(name: str, gradient: float) -> None:
    rule, start = randomised(RULES[name]()).float(), {n: v.float() for n, v in random_tensors(2).items()}
    memory = rule.initial_memory(start)
    values = start
    for step in range(3):
        values, memory = rule.update(step, values, {n: torch.full_like(v, gradient) for n, v in start.items()}, memory)
    assert all(value.isfinite().all() for value in values.values())


def test_an_untrained_mlp_is_adam_with_rates_relative_to_the_tensors() -> None:
    rule, start = CoordinatewiseMLP(list(SHAPES), rate=0.1).double(), random_tensors(3)
    ours = run(rule, start, 5)
    for task in range(2):
        for index, name in enumerate(SHAPES):
            parameter = nn.Parameter(start[name][task].clone())
            scale = math.sqrt(float(start[name][task].square().mean()) + 1e-4)
            adam = torch.optim.Adam([parameter], lr=0.1 * scale, betas=(0.9, 0.99), eps=1e-16)
            for _ in range(5):
                parameter.grad = (index + 1) * torch.sin(parameter.detach())
                adam.step()
            assert torch.allclose(ours[name][task], parameter.detach(), rtol=1e-6, atol=1e-9)


def test_the_features_and_the_step_of_an_mlp_one_coordinate_at_a_time() -> None:
    rule = randomised(CoordinatewiseMLP(list(SHAPES), width=5, rate=0.1))
    assert isinstance(rule, CoordinatewiseMLP)
    start, gradients = random_tensors(4, 1), [random_tensors(5 + s, 1) for s in range(3)]
    values, memory = start, rule.initial_memory(start)
    for step, gradient in enumerate(gradients):
        before = values
        values, memory = rule.update(step, values, gradient, memory)
    for j, name in enumerate(SHAPES):
        first, value = start[name].flatten(), before[name].flatten()
        history = [gradient[name].flatten() for gradient in gradients]
        scale = math.sqrt(float(first.square().mean()) + 1e-4)
        momenta = []
        for decay in (0.5, 0.9, 0.99):
            weights = [(1 - decay) * decay ** (2 - s) / (1 - decay**3) for s in range(3)]
            momenta.append(sum(w * g for w, g in zip(weights, history, strict=True)))
        weights = [0.01 * 0.99 ** (2 - s) / (1 - 0.99**3) for s in range(3)]
        own = sum(w * g.square() for w, g in zip(weights, history, strict=True)).sqrt()
        size = float(history[-1].square().mean().sqrt())
        for i in range(len(first)):
            known = [
                *[momentum[i] / own[i] for momentum in momenta],
                history[-1][i] / size,
                *[momentum[i] / momentum.square().mean().sqrt() for momentum in momenta],
                torch.tensor(math.log(size) / 10),
                (own[i] / size).log() / 10,
                value[i] / scale,
                (value[i] - first[i]) / scale,
            ]
            times = torch.tensor([math.tanh(3 / tau - 1) for tau in (1, 3, 10, 30)], dtype=torch.float64)
            hidden = (rule.inner @ torch.stack(known).double() + rule.times @ times + rule.inner_bias[:, 0]).relu()
            hidden = (rule.hidden @ hidden + rule.hidden_bias[:, 0]).relu()
            direction, magnitude = rule.outer @ hidden + rule.outer_bias[:, 0]
            rate = (10 * rule.log_rates[j]).exp() * scale
            expected = value[i] + rate * magnitude.exp() * (direction - momenta[1][i] / own[i])
            assert torch.allclose(values[name].flatten()[i], expected, rtol=1e-6, atol=1e-9)


def test_the_cell_is_that_of_torch() -> None:
    torch.manual_seed(0)
    cell = nn.LSTMCell(2, 6).double()
    inputs, hidden, memory = (torch.randn(3, size, 5, dtype=torch.float64) for size in (2, 6, 6))
    bias = (cell.bias_ih + cell.bias_hh).unsqueeze(1)
    ours = lstm_cell(inputs, hidden, memory, cell.weight_ih, cell.weight_hh, bias)
    flat = [value.mT.reshape(15, -1) for value in (inputs, hidden, memory)]
    theirs = cell(flat[0], (flat[1], flat[2]))
    for mine, right in zip(ours, theirs, strict=True):
        assert torch.allclose(mine.mT.reshape(15, -1), right, rtol=1e-9, atol=1e-12)


def test_small_gradients_enter_by_size_and_large_ones_by_logarithm() -> None:
    signal = log_sign(torch.tensor([[1e-6, -0.5, 0.0]]), 10.0)[0]
    assert torch.allclose(signal[0], torch.tensor([-1.0, math.log(0.5) / 10, -1.0]))
    assert torch.allclose(signal[1], torch.tensor([1e-6 * math.exp(10), -1.0, 0.0]))


def test_an_lstm_remembers() -> None:
    rule, start = randomised(RULES["lstm"]()), random_tensors(2)
    memory = rule.initial_memory(start)
    gradient = random_tensors(3)
    first, memory = rule.update(0, start, gradient, memory)
    second, _ = rule.update(1, start, gradient, memory)
    assert not torch.allclose(first["weight"], second["weight"])
