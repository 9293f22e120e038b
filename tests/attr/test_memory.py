"""Rows that were explained teach those to come."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaKernelShap, _memory, _unread_pairs
from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.evidence import Game, measure_shapley
from captum_meta.nn import cross_fitted
from tests.attr.wavy import PLAYERS, Wavy, rows


def exact(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    members = all_coalitions(x.shape[1])
    return shapley_values(torch.stack([model(torch.where(members, row, 0.0))[:, 0] for row in x]))


def error(values: Tensor, truth: Tensor) -> float:
    return float((values - truth).square().sum() / truth.square().sum())


@pytest.fixture
def briefly(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few steps, after which networks are judged although they know little."""
    monkeypatch.setattr(cross_fitted, "_MOST", 30)
    monkeypatch.setattr(_memory._Known, "_allowed", lambda known, evidence: float(known.learned > 0))


@pytest.fixture
def trusting(briefly: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """And trusted whatever rows say, but for those that speak against it."""
    trust(monkeypatch)


def trust(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_memory, "_MARGIN", -100.0)
    monkeypatch.setattr(_unread_pairs.UnreadTest, "losses", lambda test: -torch.tensor(_memory.SHARES))


def test_without_gradients_networks_are_trusted_little(monkeypatch: pytest.MonkeyPatch) -> None:
    trust(monkeypatch)
    wavy, shares = Wavy(), []
    for model in (wavy, lambda x: torch.from_numpy(wavy(x).numpy())):
        attr = MetaKernelShap(model, memory=200)
        for budget in (2, 8):
            attr.attribute(rows(200), target=0, n_samples=budget * PLAYERS)
            assert attr._memory is not None
            shares.append(attr._memory.share)
    assert shares == [1.0, 1.0, 0.0, 0.25]


def test_it_lowers_errors_and_costs_a_test() -> None:
    """A fiftieth of 200 rows' nine evaluations for gradients and twelve coalitions are four pairs of ten rows, once."""
    x = rows(200)
    alone, learning = Wavy(), Wavy()
    without, attr = MetaKernelShap(alone).attribute(x, target=0), MetaKernelShap(learning, memory=1000)
    helped = attr.attribute(x, target=0)
    truth = exact(Wavy(), x)
    assert error(helped, truth) < 0.7 * error(without, truth)
    assert learning.rows == alone.rows + 10 * 2 * 4
    torch.testing.assert_close(attr.attribute(x, target=0), helped)
    assert learning.rows == 2 * alone.rows + 10 * 2 * 4
    torch.testing.assert_close(helped.sum(1), truth.sum(1), atol=1e-5, rtol=1e-4)
    assert (helped[:, 5] == 0).all()


def test_what_is_not_understood_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise: what rows tell of a model that has nothing in common is nothing."""
    monkeypatch.setattr(cross_fitted, "_MOST", 30)

    def model(x: Tensor) -> Tensor:
        return (1e4 * (x @ torch.linspace(0.3, 0.9, PLAYERS))).sin().unsqueeze(1)

    x = rows(60)
    found = [MetaKernelShap(model, memory=memory).attribute(x, target=0) for memory in (0, 1000)]
    torch.testing.assert_close(found[1], found[0], atol=0, rtol=0)


@pytest.mark.parametrize(("understood", "allowed"), [(float("nan"), 0.0), (-0.1, 0.0), (0.2, 1.0)])
@pytest.mark.parametrize("pairs", [6, 12])
def test_networks_that_understand_nothing_have_no_share(understood: float, pairs: int, allowed: float) -> None:
    measured = measure_shapley(Game(Wavy(), rows(3), None, 0), 2 * pairs)
    known = _memory._Known(100)
    known.understood = understood
    assert known._allowed(measured) == allowed


@pytest.mark.usefixtures("briefly")
def test_it_does_not_harm_what_needs_no_help() -> None:
    def model(x: Tensor) -> Tensor:
        return torch.stack([(2 * x).sin().sum(1), x[:, 0]], dim=1)

    x = rows(60)
    without = MetaKernelShap(model).attribute(x, target=0, n_samples=4 * PLAYERS)
    helped = MetaKernelShap(model, memory=1000).attribute(x, target=0, n_samples=4 * PLAYERS)
    torch.testing.assert_close(helped, without, atol=1e-4, rtol=1e-3)


@pytest.mark.parametrize("arguments", [{}, {"return_error_estimate": True}, {"tolerance": 0.01}, {"outputs": "all"}])
def test_few_rows_are_explained_as_without(arguments: dict[str, Any]) -> None:
    selected = {} if "outputs" in arguments else {"target": 0}
    found = [MetaKernelShap(Wavy(), memory=memory).attribute(rows(20), **selected, **arguments) for memory in (0, 1000)]
    torch.testing.assert_close(found[1], found[0], atol=0, rtol=0)


def many_features(x: Tensor) -> Tensor:
    """A saturated probability of twenty features, whose gradients lie along one direction."""
    return (3 * x @ torch.linspace(0.3, 0.9, 20)).sigmoid().unsqueeze(1)


def many(count: int) -> Tensor:
    return (8 * torch.randn(count, 20, generator=torch.Generator().manual_seed(1))).round() / 8


def test_few_rows_of_which_the_border_is_not_asked_are_explained_as_without() -> None:
    found = [MetaKernelShap(many_features, memory=memory).attribute(many(10), target=0) for memory in (0, 1000)]
    torch.testing.assert_close(found[1], found[0], atol=0, rtol=0)


def of_orders(model: Callable[[Tensor], Tensor], x: Tensor, count: int) -> Tensor:
    """Shapley values by the gains of players in ``count`` orders and their reverses."""
    orders = torch.rand(count, x.shape[1], generator=torch.Generator().manual_seed(2)).argsort(1)
    values = torch.zeros_like(x)
    for order in torch.cat([orders, orders.flip(1)]):
        before = model(torch.zeros_like(x)).squeeze(1)
        for place, player in enumerate(order.tolist()):
            inside = torch.where(torch.isin(torch.arange(x.shape[1]), order[: place + 1]), x, 0.0)
            after = model(inside).squeeze(1)
            values[:, player] += after - before
            before = after
    return values / (2 * count)


def test_networks_that_are_rougher_than_the_model_do_not_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the border a row tells this model to a few thousandths, and its coalitions praise networks that know less."""
    monkeypatch.setattr(cross_fitted, "_MOST", 100)
    x = many(60)
    truth = of_orders(many_features, x, 100)
    without, helped = (
        error(MetaKernelShap(many_features, memory=memory).attribute(x, target=0), truth) for memory in (0, 60)
    )
    assert helped < 1.05 * without < 0.01


@pytest.mark.usefixtures("trusting")
def test_many_rows_of_which_the_border_is_not_asked() -> None:
    values, bounds = MetaKernelShap(many_features, memory=1000).attribute(many(40), target=0, return_error_estimate=True)
    whole = many_features(many(40)) - many_features(torch.zeros(1, 20))
    torch.testing.assert_close(values.sum(1, keepdim=True), whole, atol=5e-4, rtol=1e-3)
    assert bool((many(40) == 0).any()) and bool((values[many(40) == 0] == 0).all())
    assert bool(bounds.isfinite().all())
    without = MetaKernelShap(many_features).attribute(many(40), target=0)
    assert not torch.equal(values, without)


@pytest.mark.usefixtures("trusting")
class TestManyRows:
    @pytest.mark.parametrize(
        "arguments",
        [
            {"target": 0, "return_error_estimate": True},
            {"target": 0, "tolerance": 0.01, "return_error_estimate": True},
            {"outputs": "all"},
            {"target": torch.arange(40) % 2, "n_samples": 0},
            {"target": 0, "n_samples": 5},
        ],
    )
    def test_every_form_of_call(self, arguments: dict[str, Any]) -> None:
        x = rows(40)
        found = MetaKernelShap(Wavy(), memory=1000).attribute(x, **arguments)
        values = found[0] if isinstance(found, tuple) else found
        like = MetaKernelShap(Wavy()).attribute(x, **arguments)
        assert values.shape == (like[0] if isinstance(like, tuple) else like).shape and bool(values.isfinite().all())
        if isinstance(found, tuple):
            assert found[1].shape == (40,)

    def test_all_coalitions_are_exact(self) -> None:
        x = rows(40)
        values = MetaKernelShap(Wavy(), memory=1000).attribute(x, target=0, n_samples=2**PLAYERS)
        torch.testing.assert_close(values, exact(Wavy(), x), atol=1e-5, rtol=1e-4)

    def test_calls_agree_and_leave_random_numbers_alone(self) -> None:
        torch.manual_seed(3)
        found = [MetaKernelShap(Wavy(), memory=1000).attribute(rows(40), target=0) for _ in range(2)]
        drawn = torch.rand(3)
        torch.manual_seed(3)
        assert torch.equal(*found) and torch.equal(drawn, torch.rand(3))

    def test_later_rows_gain_from_earlier_ones(self) -> None:
        attr = MetaKernelShap(Wavy(), memory=1000)
        attr.attribute(rows(40), target=0)
        later = attr.attribute(rows(3, seed=1), target=0)
        assert not torch.equal(later, MetaKernelShap(Wavy()).attribute(rows(3, seed=1), target=0))
        assert torch.equal(
            attr.reset().attribute(rows(3, seed=1), target=0), MetaKernelShap(Wavy()).attribute(rows(3, seed=1), target=0)
        )

    def test_so_many_rows_are_kept_and_none_twice(self) -> None:
        attr = MetaKernelShap(Wavy(), memory=50)
        for count in (20, 20, 45, 70):
            attr.attribute(rows(count), target=0)
        assert attr._memory is not None
        (known,) = attr._memory._layouts.values()
        assert len(known.rows) == len(known.rows.keys.unique()) == 50

    def test_it_adds_to_what_was_adapted(self) -> None:
        attr = MetaKernelShap(Wavy(), memory=1000).adapt(rows(8, seed=2), target=0)
        values = attr.attribute(rows(40), target=0)
        torch.testing.assert_close(values.sum(1), exact(Wavy(), rows(40)).sum(1), atol=1e-4, rtol=1e-4)

    def test_precision_and_groups(self) -> None:
        mask = torch.tensor([[0, 0, 1, 1, 2, 3]])
        values = MetaKernelShap(Wavy(), memory=1000).attribute(rows(40).double(), target=0, feature_mask=mask)
        assert values.dtype == torch.float64 and torch.equal(values[:, 0], values[:, 1])

    @pytest.mark.parametrize("power", [-100, 100])
    def test_outputs_of_any_size(self, power: int) -> None:
        plain, scaled = Wavy(), Wavy()
        found = [
            MetaKernelShap(model, memory=1000).attribute(rows(40), target=0, n_samples=4 * PLAYERS)
            for model in (plain, lambda x: scaled(x) * 2.0**power)
        ]
        torch.testing.assert_close(found[1] / 2.0**power, found[0], atol=1e-4, rtol=1e-3)

    def test_progress_is_shown(self, capsys: pytest.CaptureFixture[str]) -> None:
        MetaKernelShap(Wavy(), memory=1000).attribute(rows(40), target=0, show_progress=True)
        assert "memory" in capsys.readouterr().err


class TestWhatItDoesNotServe:
    def test_rows_with_players_of_their_own(self) -> None:
        x, mask = rows(40), torch.arange(PLAYERS).expand(40, -1).clone()
        mask[::2, 1] = 0
        attr = MetaKernelShap(Wavy(), memory=1000)
        with pytest.warns(UserWarning, match="without it"):
            values = attr.attribute(x, target=0, feature_mask=mask)
        torch.testing.assert_close(values, MetaKernelShap(Wavy()).attribute(x, target=0, feature_mask=mask), atol=0, rtol=0)

    def test_backgrounds(self) -> None:
        with pytest.warns(UserWarning, match="without it"):
            MetaKernelShap(Wavy(), memory=1000).attribute(rows(2), target=0, background=rows(3, seed=1))


@pytest.mark.parametrize(("memory", "raised"), [(-1, ValueError), ("many", TypeError), (2.5, TypeError)])
def test_mistakes(memory: Any, raised: type[Exception]) -> None:
    with pytest.raises(raised, match="memory"):
        MetaKernelShap(Wavy(), memory=memory)
