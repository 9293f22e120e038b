"""Several outputs at once: those of one target at a time, from the same forwards."""

from inspect import signature
from typing import Any

import pytest
import torch
from captum.attr import Attribution, GradientShap, IntegratedGradients, InternalInfluence, LayerGradientShap
from torch import Tensor, nn

from captum_meta.attr import MetaGradientShap, MetaKernelShap, MetaShapleyValueSampling
from tests.attr.front_ends import FRONT_ENDS, asked, make

TAKING = [pair for pair in FRONT_ENDS if "outputs" in signature(pair[1].attribute).parameters]
SHARING = [pair for pair in TAKING if pair[0] in (GradientShap, IntegratedGradients, LayerGradientShap, InternalInfluence)]
"""By default they differentiate all outputs at the same points; the others are tested with coalitions."""
SHAPLEY = (MetaKernelShap, MetaShapleyValueSampling)


class Net(nn.Module):
    """A net that counts the rows that it answers for."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Linear(6, 12), nn.Linear(12, 4)
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        answer: Tensor = self.last(self.first(x).tanh())
        return answer


def explain(front_end: type[Attribution], net: nn.Module, x: Tensor, **given: Any) -> Any:
    return make(front_end, net).attribute(**asked(front_end, x, **given))


def test_what_takes_outputs() -> None:
    """All but those that explain a neuron in the place of an output."""
    assert [method.__name__ for method, front_end in FRONT_ENDS if (method, front_end) not in TAKING] == [
        "NeuronIntegratedGradients",
        "NeuronConductance",
        "NeuronGradientShap",
    ]


@pytest.mark.parametrize(("method", "front_end"), TAKING)
def test_outputs_are_those_of_one_target_at_a_time(method: type[Attribution], front_end: type[Attribution]) -> None:
    torch.manual_seed(0)
    net, x = Net(), torch.randn(3, 6)
    single = torch.stack([explain(front_end, net, x, target=k) for k in range(4)], dim=1)
    everything = explain(front_end, net, x, outputs="all")
    assert everything.shape == single.shape
    assert torch.allclose(everything, single, atol=1e-4)
    assert torch.allclose(explain(front_end, net, x, outputs=[3, -4]), single[:, [3, 0]], atol=1e-4)


@pytest.mark.parametrize(("method", "front_end"), TAKING)
def test_outputs_keep_their_own_shape(method: type[Attribution], front_end: type[Attribution]) -> None:
    torch.manual_seed(0)
    net, x = Net(), torch.randn(2, 6)
    table = explain(front_end, nn.Sequential(net, nn.Unflatten(1, (2, 2))), x, outputs="all")
    assert table.shape == (2, 2, 2, 6)
    assert torch.allclose(table[:, 1, 0], explain(front_end, net, x, target=2), atol=1e-4)


@pytest.mark.parametrize(("method", "front_end"), SHARING)
def test_forwards_are_those_of_one_target(method: type[Attribution], front_end: type[Attribution]) -> None:
    torch.manual_seed(0)
    net, x = Net(), torch.randn(3, 6)
    costs = []
    for asked_for in ({"target": 0}, {"outputs": "all"}):
        net.rows = 0
        explain(front_end, net, x, **asked_for)
        costs.append(net.rows)
    assert costs[1] <= 1.1 * costs[0]


@pytest.mark.parametrize("given", [{}, {"n_samples": 0}, {"n_samples": 30}, {"background": torch.eye(6), "n_samples": 90}])
@pytest.mark.parametrize("front_end", SHAPLEY)
def test_evaluations_of_coalitions_are_those_of_one_target(front_end: type[Attribution], given: dict[str, Any]) -> None:
    """Where the budget is that of the row; its default, and a tolerance, depend on how hard an output is."""
    torch.manual_seed(0)
    net, x = Net(), torch.randn(3, 6)
    if front_end is MetaShapleyValueSampling:
        given = {**given, "n_samples": given.get("n_samples", 18) // 6}
    costs = []
    for asked_for in ({"target": 0}, {"outputs": "all"}):
        net.rows = 0
        explain(front_end, net, x, **asked_for, **given)
        costs.append(net.rows)
    assert costs[1] <= 1.1 * costs[0]


@pytest.mark.parametrize(
    ("front_end", "given"),
    [
        (MetaShapleyValueSampling, {}),
        (MetaShapleyValueSampling, {"tolerance": 1e-3}),
        (MetaKernelShap, {"tolerance": 1e-3}),
        (MetaKernelShap, {"tolerance": 1e-4, "background": torch.eye(9)[:3]}),
    ],
)
def test_an_easy_output_has_the_answer_that_it_has_alone(front_end: type[Attribution], given: dict[str, Any]) -> None:
    """While another output goes on; a row costs what its hardest output costs alone."""

    class EasyAndHard(Net):
        def forward(self, x: Tensor) -> Tensor:
            self.rows += len(x)
            one, other = (3 * x[:, :5]).sin().prod(1), (3 * x[:, 4:]).sin().prod(1)
            return torch.stack([x.sum(1) + x[:, :2].prod(1), 9 * one + x.sum(1), 9 * other + x.sum(1)], dim=1)

    torch.manual_seed(0)
    net, rows = EasyAndHard(), torch.rand(4, 9) + 0.3
    rows[:2, 5], rows[2:, 3] = 0.0, 0.0
    for x in rows.split(1):
        costs, answers = [], []
        for asked_for in ({"outputs": "all"}, *({"target": k} for k in range(3))):
            net.rows = 0
            answers.append(make(front_end, net).attribute(x, **asked_for, **given, return_error_estimate=True))
            costs.append(net.rows)
        assert costs[0] == max(costs[1:]) > min(costs[1:])
        for together, *alone in zip(*answers, strict=True):
            assert torch.allclose(together.squeeze(0), torch.cat(alone), atol=1e-5)


@pytest.mark.parametrize("n_steps", [5, 20])
def test_forwards_with_a_background_are_those_of_one_target(n_steps: int) -> None:
    torch.manual_seed(0)
    net, x, background = Net(), torch.randn(3, 6), torch.randn(8, 6)
    front_end, given = dict(FRONT_ENDS)[IntegratedGradients], {"background": background, "n_steps": n_steps}
    single = [explain(front_end, net, x, target=k, **given) for k in range(4)]
    net.rows = 0
    explain(front_end, net, x, target=0, **given)
    cost, net.rows = net.rows, 0
    found, delta, errors = explain(
        front_end, net, x, outputs="all", return_convergence_delta=True, return_error_estimate=True, **given
    )
    assert net.rows <= 1.1 * cost
    assert torch.allclose(found, torch.stack(single, dim=1), atol=1e-4)
    assert delta.shape == errors.shape == (3, 4)


def test_draws_with_deltas_estimates_and_a_tolerance() -> None:
    torch.manual_seed(0)
    net, x, baselines = Net(), torch.randn(3, 6), torch.randn(5, 6)
    attr = MetaGradientShap(net)
    asked_for = {"return_convergence_delta": True, "return_error_estimate": True}
    values, deltas, errors = attr.attribute(x, baselines, 7, outputs=[1, 3], **asked_for)
    for place, target in enumerate((1, 3)):
        alone = attr.attribute(x, baselines, 7, target=target, **asked_for)
        for found, expected in zip((values, deltas, errors), alone, strict=True):
            assert torch.allclose(found[:, place], expected, atol=1e-5)
    values, errors = attr.attribute(x, baselines, outputs="all", tolerance=0.02, return_error_estimate=True)
    assert values.shape == (3, 4, 6) and bool((errors <= 0.02).all())
    with pytest.raises(AssertionError, match="target and outputs"):
        attr.attribute(x, baselines, target=0, outputs="all")
    with pytest.raises(AssertionError, match="not among the outputs"):
        attr.attribute(x, baselines, outputs=[4])
