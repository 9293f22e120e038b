"""What holds for every metric, over the table of all."""

from __future__ import annotations

import copy
import inspect
import pickle
from datetime import timedelta
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from metric_cases import CASES, Case, Classifier, make_data, take
from torchmetrics import MetricCollection

from captum_meta import metrics

MODEL, DATA = Classifier().eval(), make_data()
BATCHES = [slice(0, 3), slice(3, 8)]
every_metric = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def run(case: Case, metric: Any, rows: list[slice] = BATCHES) -> torch.Tensor:
    for batch in rows:
        metric.update(**case.select(take(DATA, batch)))
    return metric.compute()


def test_the_table_is_complete() -> None:
    assert {case.id for case in CASES} | {"ExplanationMetric"} == set(metrics.__all__)


@every_metric
def test_class_equals_function(case: Case) -> None:
    for reduction in ("mean", "sum", "none"):
        expected = case.score(MODEL, DATA, reduction=reduction)
        torch.testing.assert_close(run(case, case.make(MODEL, reduction=reduction)), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(run(case, case.make(MODEL)), case.score(MODEL, DATA), atol=1e-5, rtol=1e-5)


@every_metric
def test_none_has_a_value_for_each_row_that_no_other_row_changes(case: Case) -> None:
    values = case.score(MODEL, DATA, reduction="none")
    assert values.shape == (8,) and values.isfinite().all()
    alone = torch.cat([case.score(MODEL, take(DATA, slice(i, i + 1)), reduction="none") for i in range(8)])
    torch.testing.assert_close(alone, values, atol=1e-4, rtol=1e-4)


@every_metric
def test_forward_and_reset(case: Case) -> None:
    metric = case.make(MODEL)
    for batch in BATCHES:
        value = metric(**case.select(take(DATA, batch)))
        torch.testing.assert_close(value, case.score(MODEL, take(DATA, batch)), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(metric.compute(), case.score(MODEL, DATA), atol=1e-5, rtol=1e-5)
    metric.reset()
    torch.testing.assert_close(run(case, metric), case.score(MODEL, DATA), atol=1e-5, rtol=1e-5)


@every_metric
def test_pickle_and_clone(case: Case) -> None:
    metric = case.make(MODEL)
    metric.update(**case.select(take(DATA, BATCHES[0])))
    for other in (pickle.loads(pickle.dumps(metric)), metric.clone()):
        value = run(case, other, BATCHES[1:])
        torch.testing.assert_close(value, case.score(MODEL, DATA), atol=1e-5, rtol=1e-5)
    assert metric.update_count == 1
    assert metric.clone()._given is metric._given


@every_metric
def test_arguments_are_those_of_the_function(case: Case) -> None:
    names = inspect.signature(case.metric).parameters
    assert {*names, *inspect.signature(case.metric.update).parameters} - {"self", "kwargs"} == {
        *inspect.signature(case.function).parameters
    }
    with pytest.raises(ValueError, match="no_such"):
        case.make(MODEL, no_such=1)
    if case.arguments(MODEL):
        with pytest.raises(TypeError, match="missing a required argument"):
            case.metric()
    with pytest.raises(TypeError, match="too many positional"):
        case.metric(*case.arguments(MODEL), 1)


@every_metric
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions(case: Case, dtype: torch.dtype) -> None:
    data = {k: v.to(dtype) if v.is_floating_point() else v for k, v in DATA.items()}
    single = {k: v.float() if v.is_floating_point() else v for k, v in data.items()}
    value = run_on(case, copy.deepcopy(MODEL).to(dtype), data)
    assert value.dtype == torch.float32 and value.isfinite()
    if dtype == torch.bfloat16 and not case.evaluates:
        torch.testing.assert_close(value, case.score(MODEL, single))
    elif case.id not in ("MaxSensitivity", "LocalLipschitz", "Infidelity", "FaithfulnessCorrelation"):
        torch.testing.assert_close(value, case.score(MODEL, single), atol=0.1 if dtype == torch.bfloat16 else 1e-4, rtol=0)


def run_on(case: Case, model: torch.nn.Module, data: dict[str, Any]) -> torch.Tensor:
    metric = case.make(model)
    metric.update(**case.select(data))
    return metric.compute()


@every_metric
def test_small_chunks(case: Case) -> None:
    if case.evaluates:
        few = case.score(MODEL, DATA, reduction="none", max_rows=3)
        torch.testing.assert_close(few, case.score(MODEL, DATA, reduction="none"), atol=1e-4, rtol=1e-4)


@every_metric
def test_model_is_left_alone(case: Case) -> None:
    model = Classifier().train()
    before = copy.deepcopy(model.state_dict())
    metric = case.make(model)
    random_state = torch.get_rng_state()
    run(case, metric)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(module.training for module in model.modules())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in model.parameters())
    assert not any(module._forward_hooks or module._backward_hooks for module in model.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    metric.persistent(True)
    assert not list(metric.children()) and not list(metric.parameters())
    assert all(name.startswith(case.id.lower()) for name in metric.state_dict())


@every_metric
def test_inputs_are_left_alone(case: Case) -> None:
    data = {k: v.clone().requires_grad_(v.is_floating_point()) for k, v in DATA.items()}
    value = case.score(MODEL, data)
    assert not value.requires_grad
    assert all(torch.equal(value, DATA[name]) and value.grad is None for name, value in data.items())


@every_metric
def test_not_a_number_is_refused(case: Case) -> None:
    data = {k: v.clone() for k, v in DATA.items()}
    data["attributions"][2, 0, 0] = torch.nan
    if "attributions" not in case.select(data):
        data["inputs"][2] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite in rows \[2\].*leave these rows out"):
        case.score(MODEL, data)


@pytest.mark.parametrize("case", [case for case in CASES if case.evaluates], ids=lambda case: case.id)
def test_rows_of_a_bad_output_are_named(case: Case) -> None:
    data = {k: v.clone() for k, v in DATA.items()}
    data["inputs"][6] = torch.nan
    with pytest.raises(ValueError, match=r"NaN or infinite in rows \[6\]"):
        case.score(MODEL, data, max_rows=4)


@every_metric
@pytest.mark.usefixtures("unchecked")
def test_wrong_reduction_is_refused(case: Case) -> None:
    for call in (lambda: case.make(MODEL, reduction="median"), lambda: case.score(MODEL, DATA, reduction="median")):
        with pytest.raises(ValueError, match="'median': pass"):
            call()


def test_collection_equals_single_metrics() -> None:
    collection = MetricCollection({case.id: case.make(MODEL) for case in CASES})
    for batch in BATCHES:
        collection.update(**take(DATA, batch))
    values = collection.compute()
    assert len(collection.compute_groups) == len(CASES)
    for case in CASES:
        torch.testing.assert_close(values[case.id], case.score(MODEL, DATA), atol=1e-5, rtol=1e-5)


def test_equal_first_batches_are_not_merged() -> None:
    kinds = ("feature", "rank", "sign", "signed_rank")
    collection = MetricCollection({kind: metrics.TopKAgreement(k=2, kind=kind) for kind in kinds})
    same, other = DATA["attributions"], DATA["reference"]
    collection.update(same, same)
    collection.update(same, other)
    for kind in kinds:
        single = metrics.TopKAgreement(k=2, kind=kind)
        single.update(same, same)
        single.update(same, other)
        assert collection.compute()[kind] == single.compute()


def test_state_names_are_unique() -> None:
    names = [name for case in CASES for name in case.make(MODEL)._defaults]
    assert len(names) == len(set(names))


def test_plot() -> None:
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("agg")
    figure, _ = metrics.Sparseness().plot(torch.tensor(0.5))
    assert figure is not None
    pyplot.close("all")


def compute_beside_another(rank: int, address: str) -> None:
    dist.init_process_group("gloo", init_method=address, rank=rank, world_size=2, timeout=timedelta(minutes=2))
    try:
        for case in CASES:
            for reduction in ("mean", "none"):
                value = run(case, case.make(MODEL, reduction=reduction), [BATCHES[rank]])
                torch.testing.assert_close(value, case.score(MODEL, DATA, reduction=reduction), atol=1e-5, rtol=1e-5)
        sensitivities = metrics.AttributionError()
        if rank == 0:
            sensitivities.update(DATA["attributions"], DATA["reference"])
        torch.testing.assert_close(sensitivities.compute(), CASES[0].score(MODEL, DATA))
    finally:
        dist.destroy_process_group()


def test_two_processes_equal_one(tmp_path: Any) -> None:
    address = f"file://{tmp_path}/rendezvous"
    other = mp.get_context("spawn").Process(target=compute_beside_another, args=(1, address), daemon=True)
    other.start()
    compute_beside_another(0, address)
    other.join()
    assert other.exitcode == 0
