"""Shapley values of the mean game over background rows, against enumeration of all pairs."""

import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaKernelShap, MetaShapleyValueSampling
from captum_meta.benchmark.background_models import background_problems
from captum_meta.estimators import all_coalitions, shapley_values

METHODS = [MetaKernelShap, MetaShapleyValueSampling]


class Net(torch.nn.Module):
    """A net that counts the rows it is evaluated on."""

    def __init__(self, n_players: int = 6, n_outputs: int = 3) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(n_players, 16), torch.nn.Tanh(), torch.nn.Linear(16, n_outputs))
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.layers(2 * x)


def exact(model, x: Tensor, background: Tensor, target: int) -> Tensor:
    """From all coalitions with all background rows."""
    members = all_coalitions(x.shape[1])
    answers = []
    for row in x:
        mixed = torch.where(members.unsqueeze(1), row, background)
        worths = model(mixed.flatten(0, 1))[:, target].detach().double().unflatten(0, mixed.shape[:2]).mean(1)
        answers.append(shapley_values(worths))
    return torch.stack(answers).float()


@pytest.fixture
def problem() -> tuple[Net, Tensor, Tensor]:
    torch.manual_seed(0)
    return Net(), torch.randn(4, 6), torch.randn(10, 6)


def error(values: Tensor, right: Tensor) -> float:
    return float((values - right).square().sum() / right.square().sum())


@pytest.mark.parametrize("method", METHODS)
def test_all_pairs_give_the_exact_answer(method, problem) -> None:
    net, x, background = problem
    n_samples = 62 * 10 if method is MetaKernelShap else 104  # permutations of 6 evaluations
    values, bounds = method(net).attribute(
        x, target=1, background=background, n_samples=n_samples, return_error_estimate=True
    )
    torch.testing.assert_close(values, exact(net, x, background, 1), rtol=1e-4, atol=1e-5)
    assert not bounds.any()


@pytest.mark.parametrize("method", METHODS)
def test_few_pairs_come_close_and_sum_to_the_change_of_f(method, problem) -> None:
    net, x, background = problem
    n_samples = 96 if method is MetaKernelShap else 16
    values = method(net).attribute(x, target=1, background=background, n_samples=n_samples)
    assert error(values, exact(net, x, background, 1)) < 0.01
    total = net(x)[:, 1] - net(background)[:, 1].mean()
    torch.testing.assert_close(values.sum(1), total, rtol=1e-4, atol=1e-4)


def test_the_default_call_evaluates_all_of_few_pairs() -> None:
    torch.manual_seed(0)
    net, x, background = Net(5, 2), torch.randn(3, 5), torch.randn(60, 5)
    values = MetaKernelShap(net).attribute(x, target=1, background=background)
    assert error(values, exact(net, x, background, 1)) < 1e-9
    more = torch.cat([background, torch.randn(20, 5)])
    net.rows = 0
    MetaKernelShap(net).attribute(x, target=1, background=more)
    assert net.rows < len(x) * 64 * 5 + 200


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("arguments", [{}, {"n_samples": 9}, {"tolerance": 0.1}], ids=str)
def test_a_single_player_gets_all(method, arguments) -> None:
    """Behind a step, which has no gradient."""
    x, background = torch.tensor([[3.0, -1.0], [-2.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0], [2.0, -4.0]])
    mask = torch.zeros(1, 2, dtype=torch.long)

    def step(rows: Tensor) -> Tensor:
        return (rows.sum(1) > 0.5).float()

    attr, right = method(step), step(x) - step(background).mean()
    values, bounds = attr.attribute(x, background=background, feature_mask=mask, return_error_estimate=True, **arguments)
    assert torch.allclose(values, right.unsqueeze(1).expand(2, 2)) and not bounds.any()
    assert torch.allclose(attr.interactions(x, background=background, feature_mask=mask).flatten(), right)


@pytest.mark.parametrize("method", METHODS)
def test_one_background_row_is_a_baseline(method, problem) -> None:
    net, x, background = problem
    arguments = {"target": 1, "n_samples": 3}
    expected = method(net).attribute(x, background[:1], **arguments)
    assert torch.equal(method(net).attribute(x, background=background[:1], **arguments), expected)


def test_evaluations_are_pairs_and_both_ends(problem) -> None:
    net, x, background = problem
    MetaKernelShap(net).attribute(x, target=1, background=background, n_samples=100)
    probe = len(x) + 1
    assert net.rows == len(x) * 100 + len(x) + len(background) + probe


def test_a_row_does_not_depend_on_its_batch(problem) -> None:
    net, x, background = problem
    attr = MetaKernelShap(net)
    together = attr.attribute(x, target=1, background=background, n_samples=60)
    alone = torch.cat([attr.attribute(row, target=1, background=background, n_samples=60) for row in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=1e-5, atol=1e-5)


def test_targets_of_each_row_and_all_outputs_agree(problem) -> None:
    net, x, background = problem
    target = torch.tensor([0, 2, 1, 2])
    values = MetaKernelShap(net).attribute(x, target=target, background=background, n_samples=60)
    listed = MetaKernelShap(net).attribute(x, target=target.tolist(), background=background, n_samples=60)
    everything = MetaShapleyValueSampling(net).attribute(x, background=background, n_samples=10)
    assert everything.shape == (4, 3, 6)
    torch.testing.assert_close(values, listed)
    torch.testing.assert_close(values, everything[torch.arange(4), target], rtol=1e-4, atol=1e-4)


def test_players_of_several_inputs_and_groups() -> None:
    torch.manual_seed(0)
    net = Net(7, 1)
    inputs, background = (torch.randn(3, 2), torch.randn(3, 5)), (torch.randn(8, 2), torch.randn(8, 5))
    mask = (torch.tensor([[0, 1]]), torch.tensor([[1, 2, 2, 3, 3]]))

    def model(a: Tensor, b: Tensor) -> Tensor:
        return net(torch.cat([a, b], 1))[:, 0]

    values = MetaKernelShap(model).attribute(
        inputs, background=background, feature_mask=mask, n_samples=14 * 8, return_input_shape=False
    )
    groups = torch.cat(mask, 1)[0]
    members = all_coalitions(4)[:, groups]
    x, rows = torch.cat(inputs, 1), torch.cat(background, 1)
    worths = [net(torch.where(members.unsqueeze(1), row, rows).flatten(0, 1)).reshape(16, 8).mean(1) for row in x]
    torch.testing.assert_close(values, shapley_values(torch.stack(worths).double()).float(), rtol=1e-4, atol=1e-5)
    few = MetaKernelShap(model).attribute(
        inputs, background=background, feature_mask=mask, n_samples=40, return_input_shape=False
    )
    assert error(few, values) < 0.05


def test_dummies_get_nothing() -> None:
    torch.manual_seed(0)
    net = Net(4, 1)
    x, background = torch.randn(2, 6), torch.randn(9, 6)
    background[:, 4] = x[0, 4]
    values = MetaKernelShap(lambda rows: net(rows[:, :4])).attribute(x, target=0, background=background, n_samples=70)
    assert not values[:, 4:].any() and bool(values[:, :4].all())


def test_players_who_act_in_larger_coalitions_are_no_dummies() -> None:
    def conjunction(rows: Tensor) -> Tensor:
        on = rows > 0
        return (on[:, 0] & on[:, 1] & ~on[:, 2] & ~on[:, 3]).double() * 3 + rows[:, 4].double()

    torch.manual_seed(0)
    x, background = torch.ones(1, 6), torch.randn(12, 6).abs().neg()
    values = MetaKernelShap(conjunction).attribute(x, background=background, n_samples=160)[0]
    right = exact(lambda rows: conjunction(rows).unsqueeze(1), x, background, 0)[0]
    assert bool(values[:4].all()) and values[5] == 0
    assert error(values, right) < 0.05


@pytest.mark.parametrize("tolerance", [None, 0.1])
def test_a_bound_is_infinite_where_nothing_was_seen_to_act(tolerance: float | None) -> None:
    """Both halves of the pairs agree that nothing acts; one of 5,080 says otherwise."""

    def one(x: Tensor) -> Tensor:
        return (
            ((x > 0) == torch.tensor([False, True, True, False, False, True, True, False])).all(1) & (x[:, 0] == -17)
        ).double()

    x, background = torch.ones(1, 8), -torch.arange(1.0, 21.0).unsqueeze(1).expand(20, 8)
    budget = {"n_samples": 100} if tolerance is None else {"tolerance": tolerance, "n_samples": 128}
    values, bounds = MetaKernelShap(one, learner="zero-shot").attribute(
        x, background=background, return_error_estimate=True, **budget
    )
    assert not values.any() and bounds.isinf().all()
    _, bounds = MetaKernelShap(one, learner="zero-shot").attribute(
        x, background=x.expand(20, 8), return_error_estimate=True, **budget
    )
    assert not bounds.any()


def test_gradients_alone(problem) -> None:
    net, x, background = problem
    values = MetaKernelShap(net).attribute(x, target=1, background=background, n_samples=0)
    total = net(x)[:, 1] - net(background)[:, 1].mean()
    torch.testing.assert_close(values.sum(1), total, rtol=1e-4, atol=1e-4)
    assert error(values, exact(net, x, background, 1)) < 0.5


def test_a_tolerance_is_met(problem) -> None:
    net, x, background = problem
    values, bounds = MetaKernelShap(net).attribute(
        x, target=1, background=background, n_samples=500, tolerance=0.05, return_error_estimate=True
    )
    assert bool((bounds <= 0.05).all()) and net.rows < 500 * len(x)
    right = exact(net, x, background, 1)
    assert bool(((values - right).square().sum(1) <= 0.05 * right.square().sum(1)).all())


def test_additional_arguments_and_masks_of_each_row() -> None:
    torch.manual_seed(0)
    net = Net(6, 1)
    x, background, factor = torch.randn(3, 6), torch.randn(5, 6), torch.tensor([1.0, 2.0, -3.0])
    masks = torch.tensor([[0, 0, 0, 1, 1, 1], [0, 1, 2, 3, 3, 3], [0, 1, 2, 2, 0, 1]])

    def model(rows: Tensor, by: Tensor) -> Tensor:
        return net(rows)[:, 0] * by

    values = MetaKernelShap(model).attribute(
        x, background=background, additional_forward_args=factor, feature_mask=masks, n_samples=70
    )
    for row in range(3):
        alone = MetaKernelShap(lambda rows, row=row: net(rows)[:, 0] * factor[row]).attribute(
            x[row : row + 1], background=background, feature_mask=masks[row : row + 1], n_samples=70
        )
        torch.testing.assert_close(values[row : row + 1], alone, rtol=1e-4, atol=1e-5)
        members = all_coalitions(int(masks[row].max()) + 1)[:, masks[row]]
        worths = net(torch.where(members.unsqueeze(1), x[row], background).flatten(0, 1))
        expected = shapley_values(worths.reshape(len(members), 5).mean(1).detach()) * factor[row]
        torch.testing.assert_close(values[row], expected[masks[row]], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    ("background", "baselines", "kind", "says"),
    [
        (torch.zeros(3, 6), 0, AssertionError, "both passed"),
        (torch.zeros(3, 5), None, AssertionError, "pass rows of shape"),
        (torch.zeros(0, 6), None, AssertionError, "K at least 1"),
        (torch.zeros(6), None, AssertionError, "pass rows of shape"),
        ((torch.zeros(3, 6), torch.zeros(3, 6)), None, AssertionError, "one for each input"),
        (torch.zeros(3, 6).numpy(), None, AssertionError, "torch.from_numpy"),
    ],
)
def test_mistakes_are_named(background, baselines, kind, says, problem) -> None:
    net, x, _ = problem
    with pytest.raises(kind, match=says):
        MetaKernelShap(net).attribute(x, baselines, target=1, background=background)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("on", ["baselines", "background"])
def test_several_outputs_are_those_of_one_target_at_a_time(method, on, problem) -> None:
    net, x, background = problem
    attr, behind = method(net), {on: background if on == "background" else background[:1]}
    n_samples = 36 if method is MetaKernelShap else 6
    single = [attr.attribute(x, target=k, n_samples=n_samples, **behind) for k in range(3)]
    net.rows = 0
    everything = attr.attribute(x, outputs="all", n_samples=n_samples, **behind)
    cost = net.rows
    torch.testing.assert_close(everything, torch.stack(single, dim=1), rtol=1e-4, atol=1e-4)
    some, bounds = attr.attribute(x, outputs=[2, 0], n_samples=n_samples, return_error_estimate=True, **behind)
    torch.testing.assert_close(some, everything[:, [2, 0]], rtol=1e-4, atol=1e-4)
    assert bounds.shape == (4, 2)
    net.rows = 0
    attr.attribute(x, target=0, n_samples=n_samples, **behind)
    assert cost <= 1.1 * net.rows


def test_outputs_of_groups_and_of_models_with_one_output(problem) -> None:
    net, x, _ = problem
    groups = torch.tensor([[0, 0, 1, 1, 2, 2]])
    values = MetaKernelShap(net).attribute(x, outputs=[1, 2], feature_mask=groups, return_input_shape=False)
    assert values.shape == (4, 2, 3)
    one = MetaKernelShap(lambda rows: net(rows)[:, 0])
    torch.testing.assert_close(one.attribute(x, outputs="all")[:, 0], one.attribute(x))


@pytest.mark.parametrize(
    ("outputs", "target", "kind", "says"),
    [
        ([0, 3], None, AssertionError, "not among the outputs"),
        ("some", None, TypeError, "pass 'all'"),
        ([0.5], None, TypeError, "pass 'all'"),
        (1, None, TypeError, "pass 'all'"),
        ([], None, ValueError, "empty"),
        ("all", 1, AssertionError, "both passed"),
    ],
)
def test_outputs_that_do_not_exist(outputs, target, kind, says, problem) -> None:
    net, x, _ = problem
    with pytest.raises(kind, match=says):
        MetaKernelShap(net).attribute(x, target=target, outputs=outputs)


def test_bounds_of_few_pairs_hold() -> None:
    problem = background_problems()["MLP, logit, M=8, K=50"]()
    values, bounds = MetaKernelShap(problem.model, learner="zero-shot").attribute(
        problem.inputs, background=problem.background, n_samples=64, return_error_estimate=True
    )
    errors = (values - problem.values).square().sum(1) / problem.values.square().sum(1)
    assert int((errors <= bounds).sum()) >= 7


@pytest.mark.parametrize("n_samples", [50, 100])
def test_missing_values_are_not_those_that_they_look_like(n_samples: int) -> None:
    """A missing value among rows of zeros is a change; it was taken for a zero."""
    torch.manual_seed(0)

    def model(rows: Tensor) -> Tensor:
        second = torch.where(rows[:, 1].isnan(), 5.0, rows[:, 1])
        return (second * rows[:, 0] + rows[:, 2] * rows[:, 3] + rows[:, 4].tanh()).unsqueeze(1)

    x, background = torch.randn(3, 5), torch.randn(6, 5)
    x[:, 1], background[:, 1] = torch.nan, 0.0
    values = MetaKernelShap(model).attribute(x, target=0, background=background, n_samples=n_samples)
    assert error(values, exact(model, x, background, 0)) < 0.02
    x[:, 1], background[:, 1] = torch.nan, torch.nan
    assert not MetaKernelShap(model).attribute(x, target=0, background=background, n_samples=n_samples)[:, 1].any()


@pytest.mark.parametrize("method", METHODS)
def test_background_rows_between_whole_numbers_are_not_rounded(method) -> None:
    x, background = torch.tensor([[1, 2, 3]]), torch.tensor([[0.5, 1.5, 0.25], [0.1, 0.2, 0.3]])
    weights = torch.tensor([1.0, 2.0, 3.0])
    values = method(lambda rows: rows.float() @ weights).attribute(x, background=background)
    torch.testing.assert_close(values.float(), (x - background.mean(0)) * weights)


@pytest.mark.parametrize("method", METHODS)
def test_of_many_players_gradients_alone_are_measured_and_said_so(method) -> None:
    """Twice as many pairs as players, each of a place for every player, were more than any memory holds."""
    torch.manual_seed(0)
    net, x, background = Net(400), torch.randn(2, 400), torch.randn(12, 400)
    with pytest.warns(UserWarning, match="only gradients at a few background rows"):
        values = method(net).attribute(x, target=0, background=background)
    assert net.rows < 2 * 8 * 5 + 2 + 12 + 20
    torch.testing.assert_close(values.sum(1), net(x)[:, 0] - net(background)[:, 0].mean(), rtol=1e-4, atol=1e-4)


def test_a_tolerance_holds_for_a_trained_model() -> None:
    """Rows leave where the estimate is low; it must not be so by luck alone."""
    problem = background_problems(1)["boosted trees, logit, M=8, K=50"]()
    values, bounds = MetaKernelShap(problem.model, learner="zero-shot").attribute(
        problem.inputs, background=problem.background, tolerance=0.1, n_samples=400, return_error_estimate=True
    )
    errors = (values - problem.values).square().sum(1) / problem.values.square().sum(1)
    left = bounds <= 0.1
    assert int(left.sum()) >= 6 and bool((errors[left] <= 0.1).all())
