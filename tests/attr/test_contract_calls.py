"""The contract of calls that Captum does not have, or seldom: background rows, outputs, interactions; from one table."""

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest
import torch
from captum.attr import Attribution, IntegratedGradients, KernelShap, ShapleyValueSampling
from torch import Tensor, nn

from tests.attr.comparing import Fails, assert_same, snapshot
from tests.attr.conftest import CountingModel
from tests.attr.front_ends import PEERS, make

Call = Callable[..., Tensor]
ROWS = torch.linspace(-1, 1, 18).reshape(3, 6).sin()


def rows_like(x: Tensor) -> Tensor:
    return ROWS[:, : x.shape[1]].to(x)


def background(attr: Any, x: Tensor, target: int = 0) -> Tensor:
    values: Tensor = attr.attribute(x, target=target, background=rows_like(x))
    return values


def outputs(attr: Any, x: Tensor, target: int = 0) -> Tensor:
    values: Tensor = attr.attribute(x, outputs=[target])[:, 0]
    return values


def interactions(attr: Any, x: Tensor, target: int = 0) -> Tensor:
    values: Tensor = attr.interactions(x, target=target)
    return values


def interactions_behind(attr: Any, x: Tensor, target: int = 0) -> Tensor:
    values: Tensor = attr.interactions(x, target=target, background=rows_like(x))
    return values


def all_coalitions(attr: Any, x: Tensor, target: int = 0) -> Tensor:
    values: Tensor = attr.attribute(x, target=target, n_samples=64)
    return values


SHAPLEY = (KernelShap, ShapleyValueSampling)
CALLS: dict[Call, tuple[type[Attribution], ...]] = {
    background: (*SHAPLEY, IntegratedGradients),
    outputs: (*SHAPLEY, IntegratedGradients),
    all_coalitions: SHAPLEY,
    interactions: SHAPLEY,
    interactions_behind: SHAPLEY,
}
CASES = [
    pytest.param(call, PEERS[method], id=f"{call.__name__}-{method.__name__}")
    for call, some in CALLS.items()
    for method in some
]


@pytest.mark.parametrize(("call", "front_end"), CASES)
class TestEveryCall:
    def test_precision_is_kept(self, call: Call, front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6, dtype=torch.float64)
        assert call(make(front_end, CountingModel().double().eval()), x).dtype == torch.float64
        assert call(make(front_end, CountingModel().eval()), x.float()).dtype == torch.float32

    def test_a_row_does_not_depend_on_its_batch(self, call: Call, front_end: type[Attribution]) -> None:
        x, attr = torch.randn(4, 6).mul(64).round().div(64), make(front_end, CountingModel().eval())
        assert torch.allclose(call(attr, x[2:3])[0], call(attr, x)[2], atol=1e-5)

    def test_nan_stays_in_its_row(self, call: Call, front_end: type[Attribution]) -> None:
        x = torch.randn(3, 6)
        x[1, 2] = torch.nan
        values = call(make(front_end, CountingModel().eval()), x)
        assert values[1].isnan().any()
        assert values[[0, 2]].isfinite().all()

    def test_two_calls_agree_and_the_random_state_stands_still(self, call: Call, front_end: type[Attribution]) -> None:
        x, attr = torch.randn(3, 6), make(front_end, nn.Sequential(CountingModel(), nn.Dropout(0.5)).train())
        state = torch.get_rng_state()
        first = call(attr, x)
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, call(attr, x))

    @pytest.mark.parametrize("raises", [False, True])
    def test_the_explained_model_is_left_as_it_was(self, call: Call, front_end: type[Attribution], raises: bool) -> None:
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), Fails(raises), nn.Linear(8, 2)).eval()
        model[0].weight.requires_grad_(False)
        model[3].weight.grad = torch.ones_like(model[3].weight)
        x = torch.randn(4, 6, requires_grad=True)
        attr = make(front_end, model)
        before = snapshot(model, x)
        if raises:
            with pytest.raises(RuntimeError, match="on purpose"):
                call(attr, x)
        else:
            call(attr, x)
        assert_same(snapshot(model, x), before)

    def test_works_without_gradients_enabled(self, call: Call, front_end: type[Attribution]) -> None:
        x, attr = torch.randn(2, 6), make(front_end, CountingModel().eval())
        expected = call(attr, x)
        with torch.no_grad():
            assert torch.equal(call(attr, x), expected)
        with torch.inference_mode():
            assert torch.equal(call(attr, x), expected)

    def test_players_without_effect_get_nothing(self, call: Call, front_end: type[Attribution]) -> None:
        inner = CountingModel(5).eval()
        values = call(make(front_end, lambda x: inner(x[:, [0, 1, 2, 4, 5]])), torch.randn(3, 6), 1)
        assert (values.movedim(-1, 1)[:, 3] == 0).all()
        assert (values.movedim(1, -1)[..., 3] == 0).all()

    def test_forward_func_is_read_at_each_call(self, call: Call, front_end: type[Attribution]) -> None:
        x, attr = torch.randn(2, 4), make(front_end, CountingModel(4).eval())
        before, single = attr.forward_func, call(attr, x)
        attr.forward_func = lambda x: 2 * before(x)
        assert torch.allclose(call(attr, x), 2 * single, atol=1e-4)

    def test_copies_and_pickles(self, call: Call, front_end: type[Attribution]) -> None:
        x, attr = torch.randn(2, 6), make(front_end, CountingModel().eval())
        for other in (copy.deepcopy(attr), pickle.loads(pickle.dumps(attr))):
            assert torch.equal(call(other, x), call(attr, x))
