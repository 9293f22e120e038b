"""Captum's contract, from one table of all front ends: the same arguments give the same shapes, types and errors."""

import copy
import pickle
from inspect import signature
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import (
    Attribution,
    InternalInfluence,
    KernelShap,
    NeuronAttribution,
    NoiseTunnel,
    ShapleyValueSampling,
)
from captum.testing.attr.helpers.test_config import config
from torch import Tensor, nn

import captum_meta.attr
from captum_meta.attr import CalibratedAttribution, MetaAttribution
from tests.attr.comparing import Fails, assert_same, snapshot, structure
from tests.attr.conftest import CountingModel, untrained
from tests.attr.front_ends import ADAPTED, DISTRIBUTIONS, FRONT_ENDS, LEARNED, PEERS, asked, make, over


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


def test_the_table_has_all_front_ends() -> None:
    public = [getattr(captum_meta.attr, name) for name in captum_meta.attr.__all__]
    standing_in = {each for each in public if issubclass(each, Attribution)}
    assert set(PEERS.values()) == standing_in - {CalibratedAttribution, MetaAttribution}  # which wrap any method


@pytest.mark.parametrize(("method", "front_end"), FRONT_ENDS)
class TestEveryFrontEnd:
    def test_is_the_method_it_stands_in_for(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        assert issubclass(front_end, method)
        assert front_end.attribute.__wrapped__ is not None  # type: ignore[attr-defined]

    def test_tuples_stay_tuples(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        attr = make(front_end, CountingModel())
        assert isinstance(attr.attribute(**asked(front_end, x, target=0)), Tensor)
        single, theirs = (
            each.attribute(**asked(front_end, (x,), target=0)) for each in (attr, over(method, CountingModel()))
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
    @pytest.mark.usefixtures("unchecked")
    def test_refuses_what_captum_refuses(
        self, method: type[Attribution], front_end: type[Attribution], wrong: dict[str, Any]
    ) -> None:
        given = {"inputs": torch.zeros(2, 6), "target": 1, **wrong}
        if issubclass(method, DISTRIBUTIONS):
            given["baselines"] = torch.zeros(2, 6)
        arguments = asked(method, given.pop("inputs"), **given)
        model = CountingModel()
        try:
            over(method, model).attribute(**arguments)
        except Exception as error:
            also = (TypeError, IndexError) if issubclass(method, NeuronAttribution) else ()  # Captum's are accidents there
            with pytest.raises((type(error), *also)):
                make(front_end, model).attribute(**arguments)
        else:
            make(front_end, model).attribute(**arguments)

    def test_refuses_inputs_without_a_batch(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        with pytest.raises(IndexError, match="batch dimension"):
            make(front_end, CountingModel()).attribute(**asked(front_end, torch.tensor(1.0), baselines=torch.zeros(1)))

    def test_precision_is_kept(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6, dtype=torch.float64)
        values = make(front_end, CountingModel().double()).attribute(**asked(front_end, x, target=0))
        assert values.dtype == torch.float64

    def test_a_row_does_not_depend_on_its_batch(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(5, 6)
        target = 0 if issubclass(method, NeuronAttribution) else torch.tensor([0, 1, 2, 0, 1])
        arguments = {"n_samples": 30} if "n_samples" in signature(front_end.attribute).parameters else {}
        attr = make(front_end, CountingModel())
        together = attr.attribute(**asked(front_end, x, target=target, **arguments))
        alone = attr.attribute(**asked(front_end, x[3:4], target=0, **arguments))
        assert torch.allclose(alone[0], together[3], atol=1e-5)

    def test_nan_stays_in_its_row(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(3, 6)
        x[1, 2] = torch.nan
        base = {"baselines": torch.zeros(1, 6)} if issubclass(method, DISTRIBUTIONS) else {}
        values = make(front_end, CountingModel()).attribute(**asked(front_end, x, target=0, **base))
        assert values[1].isnan().any()
        assert values[[0, 2]].isfinite().all()

    def test_two_calls_agree_and_the_random_state_stands_still(
        self, method: type[Attribution], front_end: type[Attribution]
    ) -> None:
        x = torch.randn(3, 6)
        model = nn.Sequential(CountingModel(), nn.Dropout(0.5)).train()
        attr = make(front_end, model)
        state = torch.get_rng_state()
        first = attr.attribute(**asked(front_end, x, target=0))
        assert torch.equal(torch.get_rng_state(), state)
        assert torch.equal(first, attr.attribute(**asked(front_end, x, target=0)))

    @pytest.mark.parametrize("raises", [False, True])
    def test_the_explained_model_is_left_as_it_was(
        self, method: type[Attribution], front_end: type[Attribution], raises: bool
    ) -> None:
        model = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.Dropout(), Fails(raises), nn.Linear(8, 2)).train()
        model[0].weight.requires_grad_(False)
        model[4].weight.grad = torch.ones_like(model[4].weight)
        x = torch.randn(4, 6, requires_grad=True)
        attr = make(front_end, model)
        before = snapshot(model, x)
        if raises:
            with pytest.raises(RuntimeError, match="on purpose"):
                attr.attribute(**asked(front_end, x, target=0))
        else:
            attr.attribute(**asked(front_end, x, target=0))
        assert_same(snapshot(model, x), before)

    def test_works_without_gradients_enabled(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        attr = make(front_end, CountingModel())
        expected = attr.attribute(**asked(front_end, x, target=0))
        with torch.no_grad():
            assert torch.equal(attr.attribute(**asked(front_end, x, target=0)), expected)
        with torch.inference_mode():
            assert torch.equal(attr.attribute(**asked(front_end, x, target=0)), expected)

    def test_players_without_effect_get_nothing(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        inner = CountingModel(5)
        x = torch.randn(3, 6)
        attr = make(front_end, lambda x: inner(x[:, [0, 1, 2, 4, 5]]))
        assert (attr.attribute(**asked(front_end, x, target=1))[:, 3] == 0).all()

    def test_additive_models_are_explained_exactly(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(3, 4)
        attr = make(front_end, lambda x: x @ torch.tensor([1.0, -2.0, 0.5, 3.0]))
        expected = (torch.ones_like(x) if method is InternalInfluence else x) * torch.tensor([1.0, -2.0, 0.5, 3.0])
        assert torch.allclose(attr.attribute(**asked(front_end, x)), expected, atol=1e-5)

    def test_forward_func_is_read_at_each_call(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 3)
        attr = make(front_end, lambda x: x.sum(1))
        before = attr.forward_func
        within = issubclass(method, NeuronAttribution)  # what comes behind a neuron does not change it
        attr.forward_func = lambda x: before(2 * x) if within else 2 * before(x)
        expected = 2 * torch.ones_like(x) if method is InternalInfluence else 2 * x
        assert torch.allclose(attr.attribute(**asked(front_end, x)), expected, atol=1e-5)

    def test_noise_tunnel_takes_it(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        tunnel = NoiseTunnel(make(front_end, CountingModel()))
        values = tunnel.attribute(**asked(front_end, x, target=1), nt_samples=2, stdevs=0.1)
        assert values.shape == x.shape

    def test_copies_and_pickles(self, method: type[Attribution], front_end: type[Attribution]) -> None:
        x = torch.randn(2, 6)
        attr = make(front_end, CountingModel())
        if method in ADAPTED:
            attr.adapt(torch.randn(4, 6), target=0, attributions=torch.randn(4, 6))
        expected = attr.attribute(**asked(front_end, x, target=0))
        for other in (copy.deepcopy(attr), pickle.loads(pickle.dumps(attr))):
            assert torch.equal(other.attribute(**asked(front_end, x, target=0)), expected)


@pytest.mark.parametrize("front_end", LEARNED.values())
def test_a_learner_of_another_kind_is_refused(front_end: type[Attribution]) -> None:
    other = untrained("path" if issubclass(front_end, (KernelShap, ShapleyValueSampling)) else "shapley")
    with pytest.raises(ValueError, match="attributions: pass"):
        over(front_end, CountingModel(), learner=other)


@pytest.mark.parametrize("front_end", LEARNED.values())
def test_says_which_learner_ships_with_it(front_end: type[Attribution]) -> None:
    attr = over(front_end, CountingModel())
    name = type(attr.forward_func).__name__
    assert repr(attr) == f"{front_end.__name__}({name}, learner={type(attr.learner).__name__})"


@pytest.mark.parametrize("front_end", [ours for method, ours in LEARNED.items() if method not in ADAPTED])
def test_what_cannot_adapt_says_so(front_end: type[Attribution]) -> None:
    with pytest.raises(NotImplementedError, match="does not adapt"):
        make(front_end, CountingModel()).adapt(torch.randn(2, 6))
