"""Unusual inputs, models and surroundings that Captum accepts: at full budget the answer is the exact one."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from captum.attr import Attribution, GradientShap, IntegratedGradients, KernelShap, ShapleyValueSampling
from torch import Tensor, nn

from captum_meta.attr import MetaGradientShap, MetaIntegratedGradients, MetaKernelShap, MetaShapleyValueSampling
from tests.attr.conftest import untrained

X = torch.tensor([[2.0, 1.0, 3.0], [1.0, 4.0, 2.0]])
PRODUCT = (X.prod(1) / 3).unsqueeze(1).expand(2, 3)
"""Shapley values and Integrated Gradients of the product of all features."""
FULL = {MetaKernelShap: {"n_samples": 6}, MetaShapleyValueSampling: {"n_samples": 2}, MetaIntegratedGradients: {}}


class InPlace(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mul_(2.0).prod(1) / 8


class Product(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.prod(1)


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.prod(1)


def explain(front_end: type[Attribution], model: Callable[..., Any], x: Any, **arguments: Any) -> Any:
    attr = front_end(model, learner=untrained(front_end.kind))  # type: ignore[attr-defined, call-arg]
    return attr.attribute(x, **FULL.get(front_end, {}), **arguments)


@pytest.mark.parametrize("front_end", FULL)
@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.float16, torch.bfloat16, torch.float64], ids=str)
def test_dtypes_of_inputs(front_end: type[Attribution], dtype: torch.dtype) -> None:
    values = explain(front_end, lambda x: x.float().prod(1), X.to(dtype))
    assert values.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
    assert torch.allclose(values.float(), PRODUCT, rtol=1e-2 if dtype.itemsize == 2 else 1e-5)


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_groups_over_inputs_of_several_dtypes(front_end: type[Attribution]) -> None:
    parts, masks = (X[:, :1], X[:, 1:].double()), (torch.tensor([[0]]), torch.tensor([[5, 0]]))
    first, second = explain(front_end, lambda x, y: x[:, 0] * y.float().prod(1), parts, feature_mask=masks)
    assert first.dtype == torch.float32 and second.dtype == torch.float64
    assert torch.allclose(torch.cat([first, second], 1).float(), X.prod(1, keepdim=True).expand(2, 3) / 2)


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_truth_values_in_and_out(front_end: type[Attribution]) -> None:
    x = torch.tensor([[True, True, False], [True, True, True]])
    expected = torch.tensor([[0.5, 0.5, 0.0], [1 / 3, 1 / 3, 1 / 3]])
    assert torch.allclose(explain(front_end, lambda x: x[:, :2].all(1), x)[0], expected[0], atol=1e-6)
    assert torch.allclose(explain(front_end, lambda x: x.float().prod(1), x)[1], expected[1], atol=1e-6)


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_outputs_that_are_whole_numbers(front_end: type[Attribution]) -> None:
    assert torch.allclose(explain(front_end, lambda x: x.prod(1).long(), X), PRODUCT, atol=1e-5)
    assert torch.allclose(explain(front_end, lambda x: np.asarray(x.prod(1).numpy(), dtype=int), X), PRODUCT, atol=1e-5)


@pytest.mark.parametrize("front_end", FULL)
@pytest.mark.parametrize("model", [InPlace(), nn.Sequential(nn.ReLU(inplace=True), Product())], ids=["mul_", "ReLU"])
def test_models_that_work_in_place(front_end: type[Attribution], model: nn.Module) -> None:
    x = X.clone()
    assert torch.allclose(explain(front_end, model, x), PRODUCT, atol=1e-5)
    assert torch.equal(x, X)


@pytest.mark.parametrize(
    "model",
    [
        torch.inference_mode()(Product()),
        NoBackward.apply,
        lambda x: torch.special.zeta(x + 2, x + 1).sum(1) * 0 + x.prod(1),
        nn.Sequential(nn.ReLU(inplace=True), InPlace()),
    ],
    ids=["inference mode", "no backward", "no derivative", "in place"],
)
def test_models_that_cannot_be_differentiated(model: Callable[..., Any]) -> None:
    values = MetaKernelShap(model, learner=untrained("shapley")).attribute(X, n_samples=6)
    assert torch.allclose(values, PRODUCT, atol=1e-5)
    with pytest.raises(RuntimeError, match="use MetaKernelShap"):
        MetaIntegratedGradients(model, learner=untrained("path")).attribute(X)


def test_a_model_made_in_inference_mode() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1))
        values = explain(MetaKernelShap, model, X, target=0)
        assert torch.allclose(values.sum(1), (model(X) - model(0 * X)).flatten(), atol=1e-5)


@pytest.mark.parametrize(
    ("method", "front_end"),
    [
        (ShapleyValueSampling, MetaShapleyValueSampling),
        (IntegratedGradients, MetaIntegratedGradients),
        (GradientShap, MetaGradientShap),
    ],
)
def test_inputs_without_a_dimension_of_features(method: type[Attribution], front_end: type[Attribution]) -> None:
    x = torch.tensor([1.0, 2.0, 3.0])
    base = {"baselines": torch.zeros(2)} if method is GradientShap else {}
    theirs = method(lambda x: 2 * x + 1).attribute(x, **base)  # type: ignore[call-arg]
    assert torch.allclose(explain(front_end, lambda x: 2 * x + 1, x, **base), theirs, atol=1e-5)


@pytest.mark.parametrize("front_end", [*FULL, MetaGradientShap])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
def test_autocast_is_for_the_explained_model_alone(front_end: type[Attribution], dtype: torch.dtype) -> None:
    def answer(context: AbstractContextManager[Any]) -> Tensor:
        base = {"baselines": torch.zeros(2, 4)} if front_end is MetaGradientShap else {"baselines": torch.ones(1, 4)}
        attr = front_end(lambda x: x.sin().prod(1) + x[:, 0] * x[:, 1])  # type: ignore[call-arg]
        x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
        with context:
            if front_end is not MetaGradientShap:
                attr.adapt(x.flip(0), **base)  # type: ignore[attr-defined]
            return attr.attribute(x, **base)  # type: ignore[no-any-return]

    assert torch.equal(answer(nullcontext()), answer(torch.autocast("cpu", dtype)))


@pytest.mark.parametrize("front_end", FULL)
@pytest.mark.parametrize("output", [{"logits": 1}, None, (X, X)], ids=["dict", "None", "tuple"])
def test_what_is_no_output_is_named(front_end: type[Attribution], output: object) -> None:
    with pytest.raises(AssertionError, match=f"forward_func gave a {type(output).__name__}"):
        explain(front_end, lambda x: output, X, target=0)


def first_alone(x: Tensor) -> Tensor:
    return torch.stack([x[:1].prod(1), x[:1].sum(1)], dim=1)


def refuses_several(x: Tensor) -> Tensor:
    return first_alone(x.reshape(1, 3))


@pytest.mark.parametrize("model", [first_alone, refuses_several])
def test_models_of_one_example_as_those_of_llm_attribution(model: Callable[..., Any]) -> None:
    values = explain(MetaShapleyValueSampling, model, X[:1])
    assert torch.allclose(values[0], torch.stack([PRODUCT[0], X[0]]), atol=1e-5)
    assert torch.allclose(explain(MetaKernelShap, model, X[:1], target=1), X[:1], atol=1e-5)


def test_errors_of_a_model_of_one_example_are_not_swallowed() -> None:
    with pytest.raises(KeyError, match="on purpose"):
        explain(MetaKernelShap, lambda x: {}["on purpose"], X[:1])


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
@pytest.mark.parametrize("model", [Product(), lambda x: x.prod()], ids=["rows", "batch"])
def test_progress_is_shown_where_it_is_asked_for(
    front_end: type[Attribution], model: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    quiet = explain(front_end, model, X)
    assert not capsys.readouterr().err
    assert torch.equal(explain(front_end, model, X, perturbations_per_eval=2, show_progress=True), quiet)
    assert f"{front_end(model).get_name()} attribution: 100%" in capsys.readouterr().err  # type: ignore[call-arg]


@pytest.mark.parametrize("method", ["gausslegendre", "riemann_middle"])
@pytest.mark.parametrize("n_steps", [0, -1])
def test_a_path_without_steps_is_refused_as_by_captum(n_steps: int, method: str) -> None:
    for attr in (IntegratedGradients(Product()), MetaIntegratedGradients(Product(), learner=untrained("path"))):
        with pytest.raises(AssertionError, match="steps"):
            attr.attribute(X, n_steps=n_steps, method=method)


def test_gradient_shap_draws_of_every_input_for_itself() -> None:
    def model(x: Tensor, y: Tensor) -> Tensor:
        return x.float().square().sum(1) + y.sum(1)

    x, y = torch.tensor([[3, 1], [2, 2]]), torch.ones(2, 1)
    attr = MetaGradientShap(model, learner=untrained("path"))
    baselines = (torch.tensor([[1, 0], [0, 0], [0, 1]]), torch.zeros(5, 1))
    values = attr.attribute((x, y), baselines, n_samples=2000)
    assert torch.allclose(values[0], x**2 - baselines[0].float().square().mean(0), atol=0.1)
    assert torch.allclose(values[1], torch.ones(2, 1), atol=1e-2)
    assert attr.attribute((x, y), (torch.zeros(1, 2), 0))[1].shape == (2, 1)  # Captum takes a number behind a tensor


def test_gradient_shap_without_multiplication_is_the_average_gradient() -> None:
    x, baselines = torch.tensor([[0.5, 1.0], [-1.0, 0.0]]), torch.tensor([[1.0, 1.0], [0.0, -1.0]])
    attr = MetaGradientShap(lambda x: x.square().sum(1), multiply_by_inputs=False, learner=untrained("path"))
    expected = x + baselines.mean(0)  # of 2 z over the path from each baseline
    assert torch.allclose(attr.attribute(x, baselines, n_samples=2000), expected, atol=5e-2)


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"n_samples": 0}, ValueError),
        ({"stdevs": (0.1, 0.2)}, AssertionError),
        ({"stdevs": [0.1]}, AssertionError),
        ({"stdevs": -0.1}, RuntimeError),
        ({"baselines": torch.zeros(0, 3)}, ValueError),
        ({"baselines": (torch.zeros(2, 3), torch.zeros(2, 3))}, AssertionError),
        ({"baselines": torch.zeros(2, 2)}, AssertionError),
    ],
    ids=str,
)
def test_gradient_shap_says_what_is_wrong(wrong: dict[str, Any], error: type[Exception]) -> None:
    attr = MetaGradientShap(Product(), learner=untrained("path"))
    with pytest.raises(error, match=r"pass|positive|same shape"):
        attr.attribute(X, **{"baselines": torch.zeros(2, 3), **wrong})
    with pytest.raises(AssertionError, match="one number for the whole batch"):
        MetaGradientShap(lambda x: x.sum(), learner=untrained("path")).attribute(X, torch.zeros(1, 3))


class Stateful(nn.Module):
    """A net that counts its calls, keeps a hidden state, and has a table that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 1)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("hidden", torch.zeros(3))
        self.register_buffer("table", torch.zeros(1))

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.hidden = self.hidden + self.calls
        if len(self.table) < len(x):
            self.table = torch.zeros(len(x))
        return self.layer(x)[:, 0] + self.table[: len(x)]


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling, MetaIntegratedGradients])
def test_counters_and_states_stay_as_they_were(front_end: type[Attribution], training: bool) -> None:
    model = Stateful().train(training)
    calls, hidden = model.calls, model.hidden
    loss = (model.hidden * torch.ones(3, requires_grad=True)).sum()  # which has saved the state for its backward
    front_end(model).attribute(torch.randn(3, 4))
    assert model.calls is calls and model.hidden is hidden
    assert calls == 0 and not hidden.any() and len(model.table) > 1
    loss.backward()


class Recorder(nn.Module):
    """Gives the same memory at each call, as engines do that write into buffers of theirs."""

    def __init__(self) -> None:
        super().__init__()
        self.memory = torch.zeros(10000)

    def forward(self, x: Tensor) -> Tensor:
        given = self.memory[: len(x)]
        given.copy_(x.detach().prod(1))
        return given


@pytest.mark.parametrize("arguments", [{}, {"perturbations_per_eval": 1}, {"background": torch.zeros(2, 4)}], ids=str)
@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_models_that_give_the_same_memory_again(front_end: type[Attribution], arguments: dict[str, Any]) -> None:
    values = front_end(Recorder()).attribute(torch.tensor([[1.0, 2, 3, 4], [1, 1, 2, 3]]), n_samples=30, **arguments)
    assert torch.allclose(values, torch.tensor([[6.0], [1.5]]).expand(2, 4), atol=1e-4)


class Remembering(nn.Module):
    """Begins with a state for its first batch, of which it takes no other afterwards."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("state", None)

    def forward(self, x: Tensor) -> Tensor:
        if self.state is None:
            self.state = torch.ones(len(x))
        return x.prod(1) * self.state


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling, MetaIntegratedGradients])
def test_a_state_that_there_was_not_is_none_afterwards(front_end: type[Attribution]) -> None:
    model = Remembering().eval()
    assert front_end(model).attribute(torch.ones(3, 4)).sum(1).allclose(torch.ones(3), atol=1e-5)
    assert model.state is None


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling, MetaIntegratedGradients])
def test_attributions_of_every_input_lie_in_one_piece(front_end: type[Attribution]) -> None:
    values = front_end(lambda a, b: (a.sum(1) * b.tanh().sum(1)).exp()).attribute((torch.randn(3, 2), torch.randn(3, 2)))
    assert all(part.view(-1).shape == (6,) for part in values)


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling, MetaIntegratedGradients])
def test_inputs_of_several_numbers_of_rows_are_named(front_end: type[Attribution]) -> None:
    with pytest.raises(RuntimeError, match=r"\[3, 2\] rows"):
        front_end(lambda a, b: a.sum() + b.sum()).attribute((torch.randn(3, 2), torch.randn(2, 2)))


def test_complex_inputs_are_players_of_coalitions_and_have_no_path() -> None:
    x = torch.randn(2, 3, dtype=torch.complex64)
    values = MetaKernelShap(lambda x: x.prod(1).real).attribute(x, n_samples=6)
    assert torch.allclose(values, (x.prod(1).real / 3).unsqueeze(1).expand(2, 3), atol=1e-6)
    for attr, given in (
        (MetaIntegratedGradients(lambda x: x.abs().sum(1)), {}),
        (MetaIntegratedGradients(lambda x: x.abs().sum(1)), {"create_graph": True}),
        (MetaGradientShap(lambda x: x.abs().sum(1)), {"baselines": 0 * x}),
    ):
        with pytest.raises(RuntimeError, match=r"inputs are complex numbers .*torch\.view_as_real"):
            attr.attribute(x, **given)


@pytest.mark.parametrize("front_end", FULL)
def test_a_complex_baseline_of_real_inputs_is_not_cut_off(front_end: type[Attribution]) -> None:
    with pytest.raises(AssertionError, match=r"baseline is of complex numbers \(torch.complex64\).*pass inputs.to"):
        explain(front_end, lambda x: x.abs().sum(1), X, baselines=1j * X)


@pytest.mark.parametrize("n_steps", [None, 10])
def test_f_that_is_missing_at_a_missing_input_is_warned_of(n_steps: int | None) -> None:
    x = X.clone()
    x[1, 2] = torch.nan
    with pytest.warns(UserWarning, match="not finite at the inputs or baselines of the rows 1") as caught:
        values = MetaIntegratedGradients(Product()).attribute(x, n_steps=n_steps)
    assert len(caught) == 1 and values[0].isfinite().all() and values[1].isnan().any()


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_complex_answers_are_named(front_end: type[Attribution]) -> None:
    with pytest.raises(AssertionError, match="complex numbers"):
        front_end(torch.fft.fft).attribute(torch.randn(3, 4), target=1)


def test_groups_have_the_columns_that_captum_gives_them() -> None:
    x, weights = torch.ones(2, 4), torch.tensor([1.0, 2.0, 4.0, 8.0])
    mask = torch.tensor([[-2, -2, 3, 3], [0, 0, 1, 2]])
    columns = MetaKernelShap(lambda x: x @ weights).attribute(x, feature_mask=mask, return_input_shape=False)
    expected = KernelShap(lambda x: x @ weights).attribute(x, feature_mask=mask, return_input_shape=False, n_samples=100)
    torch.testing.assert_close(columns, expected, rtol=0, atol=1e-4)
