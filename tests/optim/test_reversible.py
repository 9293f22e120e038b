"""The reversible loop against whole numbers of Python and against the unroll."""

import pytest
import torch
from torch import Tensor

from captum_meta.optim import SGD, Backprop, Clipped, InnerProblem, MomentumSGD, Reversible
from captum_meta.optim.reversible import DENOMINATOR, ExactProduct


def _loss(p: dict[str, Tensor]) -> Tensor:
    return ((p["a"].tanh() * 2 - p["b"]) ** 2).sum() + (p["b"].sin() * 0.3).sum() + 0.05 * (p["a"] ** 2).sum()


def _start() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {n: torch.randn(2, 3, generator=generator, dtype=torch.float64).requires_grad_() for n in "ab"}


@pytest.mark.parametrize("steps", [5, 100, 700])
def test_products_return_bit_for_bit(steps: int) -> None:
    first = torch.tensor([123456789012345, -98765432109876, 7, 0])
    product, values, buffers, plain = ExactProduct(first), first, [0] * 4, first.tolist()
    numerators = [DENOMINATOR * 9 // 10 - s % 7 for s in range(steps)]
    for s, n in enumerate(numerators):
        values = product.multiply(values, n) + s
        for i, v in enumerate(plain):
            buffers[i] = buffers[i] * DENOMINATOR + v % DENOMINATOR
            plain[i] = v // DENOMINATOR * n + buffers[i] % n + s
            buffers[i] //= n
        if not product.full:
            assert values.tolist() == plain
    for s in reversed(range(steps)):
        values = product.divide(values - s, numerators[s])
    assert torch.equal(values, first) and not product.buffer.any() and not product.full


@pytest.mark.parametrize("steps", [5, 100, 700])
def test_gradients_are_those_of_the_unroll(steps: int) -> None:
    found = []
    for way in (Backprop(), Reversible()):
        rule, start = MomentumSGD(["a", "b"], steps, 0.02, 0.75).double(), _start()
        end = way.solve(InnerProblem(_loss, rule, steps), start)
        (end["a"].square().sum() + end["b"].sum()).backward()
        found.append([*end.values(), *[v.grad for v in start.values()], rule.log_rates.grad, rule.logits.grad])
    for expected, got in zip(*found, strict=True):
        assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)


def test_gradients_reach_what_the_loss_closes_over_and_through_clipping() -> None:
    found = []
    for way in (Backprop(), Reversible()):
        rule, start = Clipped(MomentumSGD(["a", "b"], 20, 0.05, 0.75), 0.8).double(), _start()
        slope = torch.tensor([0.3, -0.2, 0.5], dtype=torch.float64).requires_grad_()
        evidence = slope.exp()

        def loss(p: dict[str, Tensor], evidence: Tensor = evidence) -> Tensor:
            return ((p["a"] * evidence).tanh() - p["b"]).square().sum() * 3 + p["b"].sin().sum()

        end = way.solve(InnerProblem(loss, rule, 20), start)
        outcome = end["a"].square().sum() + end["b"].sum()
        learned = [*start.values(), slope, rule.rule.log_rates, rule.rule.logits]
        found.append([*end.values(), *torch.autograd.grad(outcome, learned)])
    for expected, got in zip(*found, strict=True):
        assert torch.allclose(got, expected, rtol=1e-5, atol=1e-5)
    assert found[0][4].abs().max() > 1e-2


def test_a_loss_that_changes_is_refused() -> None:
    calls: list[None] = []

    def loss(p: dict[str, Tensor]) -> Tensor:
        calls.append(None)
        return _loss(p) * len(calls)

    end = Reversible().solve(InnerProblem(loss, MomentumSGD(["a", "b"], 5, 0.01, 0.75).double(), 5), _start())
    with pytest.raises(RuntimeError, match="bit for bit"):
        end["a"].sum().backward()


def test_another_rule_is_refused() -> None:
    with pytest.raises(TypeError, match="MomentumSGD"):
        Reversible().solve(InnerProblem(_loss, SGD(["a", "b"], 5, 0.01), 5), _start())


@pytest.mark.parametrize("rate", [1e9, float("nan")])
def test_what_the_fixed_point_cannot_hold_is_refused(rate: float) -> None:
    rule = MomentumSGD(["a", "b"], 3, 0.01, 0.75).double()
    with pytest.raises(ValueError, match="lower the rates"):
        Reversible().solve(InnerProblem(lambda p: rate * _loss(p), rule, 3), _start())
