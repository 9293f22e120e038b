"""Captum's contract, from one table of all front ends: the same arguments give the same shapes, types and errors."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    Attribution,
    GradientShap,
    IntegratedGradients,
    KernelShap,
    LayerIntegratedGradients,
    NoiseTunnel,
    ShapleyValueSampling,
)
from captum.testing.attr.helpers.test_config import config
from torch import Tensor, nn

from captum_meta.attr import (
    MetaGradientShap,
    MetaIntegratedGradients,
    MetaKernelShap,
    MetaLayerIntegratedGradients,
    MetaShapleyValueSampling,
)
from tests.attr.conftest import CountingModel, untrained

PEERS: dict[type[Attribution], type[Attribution]] = {
    KernelShap: MetaKernelShap,
    ShapleyValueSampling: MetaShapleyValueSampling,
    IntegratedGradients: MetaIntegratedGradients,
    GradientShap: MetaGradientShap,
    LayerIntegratedGradients: MetaLayerIntegratedGradients,
}
FRONT_ENDS = list(PEERS.items())
SHAPLEY = FRONT_ENDS[:2]


def make(front_end: type[Attribution], model: Callable[..., Any], **arguments: Any) -> Any:
    return over(front_end, model, learner=untrained(front_end.kind), **arguments)  # type: ignore[attr-defined]


def over(method: type[Attribution], model: Callable[..., Any], **arguments: Any) -> Any:
    """The method over a model; of layers, over a layer that hands its inputs on to the model."""
    if issubclass(method, LayerIntegratedGradients):
        behind = Behind(model)
        return method(behind, behind.layer, **arguments)
    return method(model, **arguments)  # type: ignore[call-arg]


class Behind(nn.Module):
    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.model = nn.Identity(), model
        self.eval() if not isinstance(model, nn.Module) else self.train(model.training)

    def forward(self, *inputs: Tensor) -> Tensor:
        answer: Tensor = self.model(*(self.layer(part) for part in inputs))
        return answer


def extra(front_end: type[Attribution], x: Tensor | tuple[Tensor, ...]) -> dict[str, Any]:
    """GradientShap cannot do without baselines."""
    if not issubclass(front_end, GradientShap):
        return {}
    return {"baselines": tuple(torch.zeros_like(t) for t in x) if isinstance(x, tuple) else torch.zeros_like(x)}


def entries() -> list[Any]:
    cases = []
    for entry in config:
        for method in entry["algorithms"]:
            if method in PEERS and "layer" not in entry and not entry.get("noise_tunnel"):
                cases.append(pytest.param(method, entry, id=f"{method.__name__}-{entry['name']}"))
    return cases


@pytest.mark.parametrize(("method", "entry"), entries())
def test_captums_own_configurations(method: type[Attribution], entry: dict[str, Any]) -> None:
    arguments = entry["attribute_args"]
    theirs = method(entry["model"]).attribute(**arguments)  # type: ignore[call-arg]
    ours = make(PEERS[method], entry["model"]).attribute(**arguments)
    assert structure(ours) == structure(theirs)


def structure(value: Any) -> Any:
    if isinstance(value, tuple):
        return tuple(structure(part) for part in value)
    return tuple(value.shape)


@pytest.mark.parametrize(("method", "front_end"), FRONT_ENDS)
class TestEveryFrontEnd:
    def test_is_the_method_it_stands_in_for(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        assert issubclass(front_end, method)
        assert front_end.attribute.__wrapped__ is not None  # type: ignore[attr-defined]

    def test_tuples_stay_tuples(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        attr = make(front_end, CountingModel())
        assert isinstance(attr.attribute(x, target=0, **extra(front_end, x)), Tensor)
        single, theirs = (
            each.attribute((x,), target=0, **extra(front_end, (x,))) for each in (attr, over(method, CountingModel()))
        )
        assert structure(single) == structure(theirs)

    @pytest.mark.parametrize(
        "wrong",
        [
            {"inputs": [torch.zeros(2, 6)]},
            {"target": np.int64(1)},
            {"target": torch.zeros(2, 1, dtype=torch.long)},
            {"target": [0, 1, 2]},
            {"target": 7},
            {"target": torch.tensor([0, 1, 2])},
            {"target": None},
            {"inputs": torch.zeros(0, 6)},
        ],
        ids=str,
    )
    def test_refuses_what_captum_refuses(
        self, method: type[Attribution], front_end: type[Attribution], wrong: dict[str, Any]
    ) -> None:
        arguments: dict[str, Any] = {"inputs": torch.zeros(2, 6), "target": 1, **wrong}
        if method is GradientShap:
            arguments["baselines"] = torch.zeros(2, 6)
        model = CountingModel()
        try:
            over(method, model).attribute(**arguments)
        except Exception as error:
            with pytest.raises(type(error)):
                make(front_end, model).attribute(**arguments)
        else:
            make(front_end, model).attribute(**arguments)

    def test_refuses_inputs_without_a_batch(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        with pytest.raises(IndexError, match="batch dimension"):
            make(front_end, CountingModel()).attribute(torch.tensor(1.0), **extra(front_end, torch.zeros(1)))

    def test_precision_is_kept(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6, dtype=torch.float64)
        values = make(front_end, CountingModel().double()).attribute(x, target=0, **extra(front_end, x))
        assert values.dtype == torch.float64

    def test_a_row_does_not_depend_on_its_batch(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x, target = torch.randn(5, 6), torch.tensor([0, 1, 2, 0, 1])
        arguments = {} if method in (IntegratedGradients, LayerIntegratedGradients) else {"n_samples": 30}
        attr = make(front_end, CountingModel())
        together = attr.attribute(x, target=target, **arguments, **extra(front_end, x))
        alone = attr.attribute(x[3:4], target=0, **arguments, **extra(front_end, x[3:4]))
        assert torch.allclose(alone[0], together[3], atol=1e-5)

    def test_nan_stays_in_its_row(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(3, 6)
        x[1, 2] = torch.nan
        base = {"baselines": torch.zeros(1, 6)} if method is GradientShap else {}
        values = make(front_end, CountingModel()).attribute(x, target=0, **base)
        assert values[1].isnan().any()
        assert values[[0, 2]].isfinite().all()

    def test_two_calls_agree_and_the_random_state_stands_still(
        self, method: type[Attribution], front_end: type[Attribution]
    ) -> None:
        x = torch.randn(3, 6)
        model = nn.Sequential(CountingModel(), nn.Dropout(0.5)).train()
        attr = make(front_end, model)
        state = torch.get_rng_state()
        first = attr.attribute(x, target=0, **extra(front_end, x))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, attr.attribute(x, target=0, **extra(front_end, x)))

    @pytest.mark.parametrize("raises", [False, True])
    def test_the_explained_model_is_left_as_it_was(
        self, method: type[Attribution], front_end: type[Attribution], raises: bool
    ) -> None:
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), _Fails(raises), nn.Linear(8, 2)).train()
        model[0].weight.requires_grad_(False)
        model[4].weight.grad = torch.ones_like(model[4].weight)
        x = torch.randn(4, 6, requires_grad=True)
        attr = make(front_end, model)
        before = snapshot(model, x)
        if raises:
            with pytest.raises(RuntimeError, match="on purpose"):
                attr.attribute(x, target=0, **extra(front_end, x.detach()))
        else:
            attr.attribute(x, target=0, **extra(front_end, x.detach()))
        assert_same(snapshot(model, x), before)

    def test_works_without_gradients_enabled(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        attr = make(front_end, CountingModel())
        expected = attr.attribute(x, target=0, **extra(front_end, x))
        with torch.no_grad():
            assert torch.equal(attr.attribute(x, target=0, **extra(front_end, x)), expected)
        with torch.inference_mode():
            assert torch.equal(attr.attribute(x, target=0, **extra(front_end, x)), expected)

    def test_players_without_effect_get_nothing(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        inner = CountingModel(5)
        x = torch.randn(3, 6)
        attr = make(front_end, lambda x: inner(x[:, [0, 1, 2, 4, 5]]))
        assert (attr.attribute(x, target=1, **extra(front_end, x))[:, 3] == 0).all()

    def test_additive_models_are_explained_exactly(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(3, 4)
        attr = make(front_end, lambda x: x @ torch.tensor([1.0, -2.0, 0.5, 3.0]))
        expected = x * torch.tensor([1.0, -2.0, 0.5, 3.0])
        assert torch.allclose(attr.attribute(x, **extra(front_end, x)), expected, atol=1e-5)

    def test_forward_func_is_read_at_each_call(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 3)
        attr = make(front_end, lambda x: x.sum(1))
        before = attr.forward_func
        attr.forward_func = lambda x: 2 * before(x)
        assert torch.allclose(attr.attribute(x, **extra(front_end, x)), 2 * x, atol=1e-5)

    def test_noise_tunnel_takes_it(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        tunnel = NoiseTunnel(make(front_end, CountingModel()))
        values = tunnel.attribute(x, nt_samples=2, stdevs=0.1, target=1, **extra(front_end, x))
        assert values.shape == x.shape

    def test_copies_and_pickles(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        attr = make(front_end, CountingModel())
        if method is not GradientShap:
            attr.adapt(torch.randn(4, 6), target=0, attributions=torch.randn(4, 6))
        expected = attr.attribute(x, target=0, **extra(front_end, x))
        for other in (copy.deepcopy(attr), pickle.loads(pickle.dumps(attr))):
            assert torch.equal(other.attribute(x, target=0, **extra(front_end, x)), expected)

    def test_a_learner_of_another_kind_is_refused(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        other = untrained("path" if issubclass(front_end, (KernelShap, ShapleyValueSampling)) else "shapley")
        with pytest.raises(ValueError, match="attributions: pass"):
            over(front_end, CountingModel(), learner=other)


class _Fails(nn.Module):
    def __init__(self, fails: bool) -> None:
        super().__init__()
        self.fails = fails

    def forward(self, x: Tensor) -> Tensor:
        if self.fails:
            torch.rand(3)
            raise RuntimeError("on purpose")
        return x


def snapshot(model: nn.Module, x: Tensor) -> dict[str, Any]:
    return {
        "values": {name: value.clone() for name, value in model.state_dict().items()},
        "grads": {name: None if p.grad is None else p.grad.clone() for name, p in model.named_parameters()},
        "requires_grad": {name: p.requires_grad for name, p in model.named_parameters()},
        "training": [part.training for part in model.modules()],
        "hooks": [(len(p._forward_hooks), len(p._forward_pre_hooks), len(p._backward_hooks)) for p in model.modules()],
        "input": (x.detach().clone(), x.requires_grad, x.grad),
        "random": torch.get_rng_state(),
    }


def assert_same(now: Any, before: Any) -> None:
    if isinstance(before, Tensor):
        assert torch.equal(now, before)
    elif isinstance(before, dict):
        for key, value in before.items():
            assert_same(now[key], value)
    elif isinstance(before, (tuple, list)):
        for one, other in zip(now, before, strict=True):
            assert_same(one, other)
    else:
        assert now == before
