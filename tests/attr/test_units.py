"""Outputs of any size that a dtype holds are explained alike: attributions scale with them."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from captum.attr import Attribution
from torch import Tensor, nn

from captum_meta.attr import (
    MetaAttribution,
    MetaGradientShap,
    MetaIntegratedGradients,
    MetaKernelShap,
    MetaLayerIntegratedGradients,
    MetaShapleyValueSampling,
)
from captum_meta.attr._units import InUnits
from captum_meta.learners import list_learners, load_learner
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Coalitions

SIZES = [1e-38, 1e-20, 1e20, 1e37]
X, SUPPORT = (torch.randn(count, 6, generator=torch.Generator().manual_seed(count)) for count in (3, 12))


class Scaled(nn.Module):
    def __init__(self, size: float) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.enter, self.leave = nn.Linear(6, 16), nn.Linear(16, 1)
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return self.leave(self.enter(x).tanh())[:, 0] * self.size


class Largest(Attribution):
    """A teacher: the gradient times the input."""

    def attribute(self, x: Tensor, target: Any = None) -> Tensor:
        x = x.clone().requires_grad_()
        return torch.autograd.grad(self.forward_func(x).sum(), x)[0] * x.detach()


def layer(model: Scaled) -> Any:
    return MetaLayerIntegratedGradients(model, model.enter)


CALLS: dict[str, tuple[Callable[[Scaled], Any], dict[str, Any]]] = {
    "kernel": (MetaKernelShap, {}),
    "kernel, gradients": (MetaKernelShap, {"n_samples": 0}),
    "kernel, refined": (MetaKernelShap, {"n_samples": 40}),
    "kernel, tolerance": (MetaKernelShap, {"tolerance": 0.01, "return_error_estimate": True}),
    "sampling": (MetaShapleyValueSampling, {}),
    "paths": (MetaIntegratedGradients, {}),
    "paths, few steps": (MetaIntegratedGradients, {"n_steps": 3}),
    "averages": (lambda model: MetaIntegratedGradients(model, False), {}),
    "layers": (layer, {}),
    "expected": (MetaGradientShap, {"baselines": torch.zeros(4, 6)}),
}


@lru_cache
def front_end(make: Callable[[Scaled], Any], size: float, adapted: bool) -> Any:
    attr = make(Scaled(size))
    return attr.adapt(SUPPORT) if adapted else attr


def explained(call: str, size: float, adapted: bool) -> Tensor:
    make, arguments = CALLS[call]
    values = front_end(make, size, adapted).attribute(X, **arguments)
    return (values[0] if isinstance(values, tuple) else values).double()


def assert_alike(values: Tensor, size: float, expected: Tensor) -> None:
    assert values.isfinite().all()
    assert (values / size - expected).norm() <= 1e-5 * expected.norm()


@pytest.mark.parametrize("adapted", [False, True])
@pytest.mark.parametrize("call", CALLS)
def test_attributions_scale_with_outputs_of_any_size(call: str, adapted: bool) -> None:
    if adapted and call == "expected":
        return
    expected = explained(call, 1.0, adapted)
    for size in SIZES if call == "kernel" else (SIZES[0], SIZES[-1]):
        assert_alike(explained(call, size, adapted), size, expected)


@pytest.mark.parametrize("name", list_learners("shapley"))
def test_every_shipped_learner_adapts_to_outputs_of_any_size(name: str) -> None:
    def answer(size: float) -> Tensor:
        return MetaKernelShap(Scaled(size), learner=name).adapt(SUPPORT).attribute(X).double()

    expected = answer(1.0)
    for size in (1e-38, 1e37):
        assert_alike(answer(size), size, expected)


def test_teachers_of_any_size_are_learned() -> None:
    def answer(size: float) -> Tensor:
        model = Scaled(size)
        return MetaAttribution(model, Largest(model)).adapt(SUPPORT).attribute(X).double()  # type: ignore[arg-type]

    expected = answer(1.0)
    for size in SIZES:
        assert_alike(answer(size), size, expected)


def test_estimates_and_weights_of_support_rows_have_no_unit() -> None:
    def estimates(size: float) -> Tensor:
        return MetaKernelShap(Scaled(size)).attribute(X, return_error_estimate=True)[1]

    def weights(size: float) -> Tensor:
        return MetaKernelShap(Scaled(size), learner="matching").adapt(SUPPORT).support_weights(X)

    estimate, weight = estimates(1.0), weights(1.0)
    for size in (1e-30, 1e30):
        assert torch.allclose(estimates(size), estimate, rtol=1e-3)
        assert torch.allclose(weights(size), weight, atol=1e-5)


def test_double_precision_has_a_wider_range() -> None:
    def answer(size: float) -> Tensor:
        return MetaKernelShap(Scaled(size).double()).adapt(SUPPORT.double()).attribute(X.double())

    expected = answer(1.0)
    for size in (1e-290, 1e290):
        assert_alike(answer(size), size, expected)


@pytest.mark.parametrize("name", ["zero-shot", "ridge", "matching"])
def test_units_change_no_digit_of_ordinary_numbers(name: str) -> None:
    learner = load_learner(name)
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=9, seed=5)[1][0]
    support, query = replace(rows[:6], evidence=replace(rows[:6].evidence, coalitions=None)), rows[6:].evidence
    with torch.no_grad():
        state, units = learner.adapt(support), InUnits(learner)
        expected = learner.predict(state, query)
        found = units.explain(units.adapt(support), query).attributions
        assert torch.allclose(found, expected, rtol=1e-5, atol=1e-7)
        zero_shot = learner.explainer(query).attributions
        assert torch.equal(units.explainer(query).attributions, zero_shot)


def test_gradients_of_coalitions_are_scaled_with_their_worths() -> None:
    evidence = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=3, seed=5)[1][0].evidence
    members = torch.ones(3, 2, evidence.players.shape[-1], dtype=torch.bool)
    worths, gradients = torch.ones(3, 2), torch.ones(3, 2, members.shape[-1], 1)
    coalitions = Coalitions(members, worths, worths.bool(), gradients)
    scaled = replace(evidence, coalitions=coalitions).times(torch.tensor([1.0, 2.0, -4.0])).coalitions
    assert scaled is not None and scaled.gradients is not None
    assert scaled.worths[:, 0].tolist() == scaled.gradients[:, 0, 0, 0].tolist() == [1.0, 2.0, -4.0]
