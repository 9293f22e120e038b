"""Support rows beside background rows: what is learned from them, what it costs, and whom it serves."""

import copy
import pickle
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients
from torch import Tensor, nn

from captum_meta._model import Counted
from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap, MetaLayerIntegratedGradients, MetaShapleyValueSampling
from captum_meta.benchmark.background_models import BackgroundProblem, background_problems
from captum_meta.functional import attribution_error
from tests.attr.conftest import untrained

M = 5


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(M, 16), nn.Tanh(), nn.Linear(16, 3)).eval()


def support_of(problem: BackgroundProblem, count: int) -> Tensor:
    """Rows halfway between two of the background."""
    return (problem.background[:count] + problem.background[count : 2 * count]) / 2


@pytest.mark.parametrize("name", ["MLP, logit, M=8, K=50", "boosted trees, logit, M=8, K=50"])
def test_rows_to_come_need_fewer_pairs(name: str) -> None:
    problem = background_problems()[name]()
    attr = MetaKernelShap(problem.model, learner="zero-shot")
    asked: dict[str, Any] = {"background": problem.background, "n_samples": 64, "return_error_estimate": True}
    before = attr.attribute(problem.inputs, **asked)[0]
    after, bounds = attr.adapt(support_of(problem, 16), background=problem.background).attribute(problem.inputs, **asked)
    assert float(attribution_error(after, problem.values)) < 0.6 * float(attribution_error(before, problem.values))
    errors = (after - problem.values).square().sum(1) / problem.values.square().sum(1)
    assert int((errors <= bounds).sum()) >= 7
    total = problem.model(problem.inputs) - problem.model(problem.background).mean()
    assert torch.allclose(after.sum(1), total, atol=1e-4)


def test_what_it_has_cost_is_told_and_forgotten() -> None:
    model, x, background = Counted(net()), torch.randn(5, M), torch.randn(9, M)
    attr = MetaKernelShap(model).adapt(x, background=background, n_samples=12)
    probe = 6
    assert attr.adaptation.rows == 5
    assert attr.adaptation.evaluations == model.evaluations == 5 * 12 + 5 + 9 + probe
    attr.adapt(x + 1, background=background, n_samples=12)
    assert attr.adaptation.rows == 10 and attr.adaptation.evaluations == model.evaluations
    asked = {"target": 1, "background": background, "n_samples": 20}
    adapted = attr.attribute(x, **asked)
    for other in (copy.deepcopy(attr), pickle.loads(pickle.dumps(attr))):
        assert torch.equal(other.attribute(x, **asked), adapted)
    plain = MetaKernelShap(net()).attribute(x, **asked)
    assert not torch.allclose(adapted, plain, atol=1e-6)
    assert torch.allclose(attr.reset().attribute(x, **asked), plain)


def test_two_calls_are_one_of_all_rows() -> None:
    x, background, model = torch.randn(6, M), torch.randn(7, M), net()
    asked = {"target": 0, "background": background, "n_samples": 30}
    parts = MetaKernelShap(model).adapt(x[:4], background=background).adapt(x[4:], background=background)
    whole = MetaKernelShap(model).adapt(x, background=background)
    query = torch.randn(3, M)
    assert torch.allclose(parts.attribute(query, **asked), whole.attribute(query, **asked), atol=0.02)
    alone = torch.cat([whole.attribute(row, **asked) for row in query.split(1)])
    assert torch.allclose(alone, whole.attribute(query, **asked), atol=1e-5)


@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_all_outputs_targets_of_rows_and_interactions(front_end: Any) -> None:
    model, x, background, target = net(), torch.randn(4, M), torch.randn(8, M), torch.tensor([0, 2, 1, 2])
    attr = front_end(model).adapt(torch.randn(6, M), background=background)
    n_samples = 25 if front_end is MetaKernelShap else 5
    everything = attr.attribute(x, outputs="all", background=background, n_samples=n_samples)
    for given in (target, target.tolist()):
        each = attr.attribute(x, target=given, background=background, n_samples=n_samples)
        assert torch.allclose(each, everything[torch.arange(4), target], atol=1e-4)
    pairs = attr.interactions(x, target=1, background=background, n_samples=n_samples, index="SII")
    assert torch.allclose(pairs.diagonal(dim1=1, dim2=2), everything[:, 1], atol=1e-3)
    whole = attr.attribute(x, target=1, background=background, n_samples=8 * 30)
    plain = front_end(model).attribute(x, target=1, background=background, n_samples=8 * 30)
    assert torch.equal(whole, plain)  # of which all pairs are known


def test_one_output_groups_and_several_inputs() -> None:
    model, x, background = net(), torch.randn(4, M), torch.randn(8, M)
    mask = (torch.tensor([[0, 0]]), torch.tensor([[1, 2, 3]]))

    def parted(first: Tensor, rest: Tensor) -> Tensor:
        return model(torch.cat([first, rest], 1))[:, 0]

    def cut(rows: Tensor) -> tuple[Tensor, Tensor]:
        return rows[:, :2], rows[:, 2:]

    given: dict[str, Any] = {"background": cut(background), "feature_mask": mask}
    attr = MetaKernelShap(parted).adapt(cut(torch.randn(8, M)), **given)
    errors = []
    exact = MetaKernelShap(parted).attribute(cut(x), n_samples=14 * 8, **given)
    for one in (MetaKernelShap(parted), attr):
        found = one.attribute(cut(x), n_samples=12, **given)
        errors.append(float(attribution_error(torch.cat(found, 1), torch.cat(exact, 1))))
    assert errors[1] < errors[0]


def test_of_another_background_it_is_not_used_and_says_so() -> None:
    model, x, background = net(), torch.randn(4, M), torch.randn(8, M)
    attr = MetaKernelShap(model).adapt(torch.randn(6, M), background=background)
    asked = {"target": 1, "n_samples": 20}
    with pytest.warns(UserWarning, match="is of another background"):
        found = attr.attribute(x, background=background + 1, **asked)
    assert torch.equal(found, MetaKernelShap(model).attribute(x, background=background + 1, **asked))
    with pytest.raises(ValueError, match=r"call reset\(\) first"):
        attr.adapt(x, background=background + 1)


def test_players_that_do_not_vary_for_a_row_may_act_among_support_rows() -> None:
    x, background = torch.randn(3, M), torch.randn(8, M)
    x[:, 2] = background[:, 2] = 1.0
    support = torch.randn(6, M)
    model = net()
    attr = MetaKernelShap(model).adapt(support, background=background)
    exact = MetaKernelShap(model).attribute(x, target=0, background=background, n_samples=8 * 30)
    found = attr.attribute(x, target=0, background=background, n_samples=100)
    assert not found[:, 2].any()
    assert float(attribution_error(found, exact)) < 0.01


@pytest.mark.parametrize("target", [1, torch.tensor([0, 2, 1, 0, 1, 2])])
def test_path_integrals_learn_from_four_background_rows_of_each(target: Any) -> None:
    model, x, background = net(), torch.randn(6, M), torch.randn(9, M)
    attr = MetaIntegratedGradients(model).adapt(x, background=background, target=target)
    game = attr._support.parts[0][0]
    inputs, baselines = game.inputs[0], game.baselines[0]
    assert torch.equal(inputs, x.repeat_interleave(4, 0))
    drawn = (baselines.unsqueeze(1) == background).all(2).to(torch.uint8).argmax(1).reshape(6, 4)
    assert all(len(set(row)) == 4 for row in drawn.tolist())  # no background row twice
    of_pairs = target.repeat_interleave(4) if isinstance(target, Tensor) else target
    asked = {"target": 1, "background": background, "n_steps": 40}
    plain = MetaIntegratedGradients(model).adapt(inputs, baselines, of_pairs)
    assert torch.allclose(attr.attribute(x, **asked), plain.attribute(x, **asked), atol=1e-6)
    taught = MetaIntegratedGradients(model).adapt(
        x, background=background, target=target, teacher=IntegratedGradients(model)
    )
    assert torch.allclose(taught._support.parts[0][1], attr._support.parts[0][1], atol=1e-3)


def test_one_background_row_is_a_baseline_and_layers_learn_from_the_inputs_background() -> None:
    model, x, row = net(), torch.randn(6, M), torch.randn(1, M)
    one, other = MetaKernelShap(model).adapt(x, background=row, target=0), MetaKernelShap(model).adapt(x, row, target=0)
    assert torch.equal(one.attribute(x, row, target=0), other.attribute(x, row, target=0))
    layer = MetaLayerIntegratedGradients(model, model[1], learner=untrained("path"))
    layer.adapt(torch.randn(4, M), background=torch.randn(6, M), target=0)
    assert layer._support.parts[0][0].inputs[0].shape == (16, 16)


def test_mistakes_are_named() -> None:
    x, background, attr = torch.randn(4, M), torch.randn(6, M), MetaKernelShap(net())
    with pytest.raises(ValueError, match="do not say what each of these adds"):
        attr.adapt(x, target=0, background=background, attributions=torch.randn(4, M))
    with pytest.raises(AssertionError, match="baselines and background"):
        attr.adapt(x, 0, target=0, background=background)
    with pytest.raises(AssertionError, match="pass rows of shape"):
        attr.adapt(x, target=0, background=background[:, 1:])
    with pytest.raises(ValueError, match="bind them to forward_func"):
        attr.adapt(x, background=background, additional_forward_args=torch.ones(4))
    with pytest.raises(ValueError, match="one row of feature_mask"):
        attr.adapt(x, background=background, feature_mask=torch.arange(M).expand(4, -1))
    with pytest.raises(RuntimeError, match="no support rows yet"):
        _ = attr.adaptation
