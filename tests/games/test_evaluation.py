"""Rows evaluated in any arrangement, or only in the caller's batch: values and gradients are those of the plainest loop."""

import warnings
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from captum_meta.games import Game

X = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
W = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
MIX = torch.rand(6, 6, generator=torch.Generator().manual_seed(2))
MEMBERS = torch.rand(6, 7, 5, generator=torch.Generator().manual_seed(3)) < 0.5
TABLE = torch.randn(6, 5, generator=torch.Generator().manual_seed(4))


def smooth(x: Tensor) -> Tensor:
    return torch.tanh(x @ W).prod(1) + x[:, 0]


def graph(x: Tensor) -> Tensor:
    """A graph convolution over the rows."""
    return torch.tanh(MIX @ torch.tanh(x @ W)).sum(1)


def centred(x: Tensor) -> Tensor:
    return smooth(x - x.mean(0))


def labelled(x: Tensor) -> Tensor:
    """A loss whose labels are in a closure: right for this batch alone, though its rows do not act on each other."""
    return (smooth(x) - torch.arange(6.0)).square()


def looked_up(x: Tensor, table: Tensor) -> Tensor:
    """A table for the whole batch that happens to have as many rows."""
    return smooth(x * table[(x[:, 0] > 0).long()])


WHOLE: dict[str, tuple[Callable[..., Tensor], tuple[Any, ...], bool]] = {
    "graph": (graph, (), True),
    "centred": (centred, (), True),
    "labelled": (labelled, (), False),
    "looked up": (looked_up, (TABLE,), False),
}
"""Model, additional arguments, and whether rows act on each other."""


def same_for_all(members: Tensor) -> Tensor:
    return members[:1].expand_as(members)


@pytest.mark.filterwarnings("ignore:forward_func does not answer")
@pytest.mark.parametrize("name", WHOLE)
def test_models_of_the_whole_batch_are_evaluated_on_the_callers_batch(name: str) -> None:
    model, extra, coupled = WHOLE[name]
    game = Game(model, X, None, None, extra)
    members = same_for_all(MEMBERS)
    values = game.values(members)
    assert game.together
    for turn in range(7):
        assert torch.allclose(values[:, turn, 0], model(torch.where(members[:, turn], X, 0.0), *extra))
    gradients, at_points = game.gradients(torch.tensor([0.25, 1.0]))  # type: ignore[misc]
    for turn, point in enumerate((0.25, 1.0)):
        x = (point * X).requires_grad_()
        output = model(x, *extra)
        assert torch.allclose(at_points[:, turn, 0], output)
        assert torch.allclose(gradients[:, :, turn, 0], torch.autograd.grad(output.sum(), x)[0], atol=1e-6)
    assert game.coupled == coupled
    assert (game.effects(torch.tensor([1.0])) is None) == coupled


@pytest.mark.parametrize("name", WHOLE)
def test_one_warning_says_that_rows_are_evaluated_together(name: str) -> None:
    model, extra, _ = WHOLE[name]
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        game = Game(model, X, None, None, extra)
        game.effects(torch.tensor([1.0, 0.0]))
        game.values(MEMBERS)
    assert [str(w.message)[:49] for w in caught] == ["forward_func does not answer for each of the rows"]
    assert caught[0].filename == __file__


def test_rows_that_stand_alone_are_evaluated_in_any_arrangement_after_one_small_batch() -> None:
    sizes = []

    def counted(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return smooth(x)

    game = Game(counted, X)
    values = game.values(MEMBERS)
    assert not game.together and sum(sizes) == 6 * 7 + 7
    for turn in range(7):
        assert torch.allclose(values[:, turn, 0], smooth(torch.where(MEMBERS[:, turn], X, 0.0)), atol=1e-6)
    sizes.clear()
    game.values(MEMBERS)
    assert sum(sizes) == 6 * 7
    sizes.clear()
    game.take(torch.tensor([4, 1])).values(MEMBERS[:2])
    assert sum(sizes) == 2 * 7


def test_only_what_is_wanted_is_evaluated() -> None:
    wanted = torch.rand(6, 7, generator=torch.Generator().manual_seed(5)) < 0.4
    game = Game(smooth, X)
    everything = game.values(MEMBERS)
    some = game.values(MEMBERS, wanted)
    assert torch.allclose(some[wanted], everything[wanted]) and (some[~wanted] == 0).all()
    fresh = Game(smooth, X).values(MEMBERS, wanted)
    assert torch.allclose(fresh, some)


@pytest.mark.parametrize("limit", [1, 2, 7])
def test_a_limit_holds_for_every_call(limit: int) -> None:
    sizes = []

    def counted(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return smooth(x)

    game = Game(counted, X, max_rows=limit)
    game.effects(torch.tensor([1.0, 0.5, 0.0]))
    game.values(MEMBERS)
    assert max(sizes) <= limit


@pytest.mark.filterwarnings("ignore:forward_func does not answer")
def test_a_model_of_the_whole_batch_is_given_it_even_above_the_limit() -> None:
    game = Game(graph, X, max_rows=2)
    values = game.values(same_for_all(MEMBERS))
    assert torch.allclose(values[:, 3, 0], graph(torch.where(MEMBERS[:1, 3], X, 0.0)))


class NoBackward(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return smooth(x)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        raise RuntimeError("cudnn RNN backward can only be called in training mode")


@pytest.mark.parametrize("model", [NoBackward.apply, lambda x: smooth(x) + torch.heaviside(x[:, 0], x[:, 1])])
def test_a_backward_that_fails_means_no_gradient_and_says_so(model: Callable[..., Tensor]) -> None:
    game = Game(model, X)
    with pytest.warns(UserWarning, match="could not be differentiated"):
        assert game.effects(torch.tensor([1.0])) is None
    assert game.values(MEMBERS).isfinite().all()


def test_a_model_that_fails_in_every_way_raises_its_own_error() -> None:
    def broken(x: Tensor) -> Tensor:
        raise KeyError("on purpose")

    for ask in (lambda g: g.values(MEMBERS), lambda g: g.effects(torch.tensor([1.0]))):
        with pytest.raises(KeyError, match="on purpose"):
            ask(Game(broken, X))


def test_gradients_of_the_fixed_batch_of_a_recurrent_net() -> None:
    gru, hidden = nn.GRU(1, 4, batch_first=True), torch.randn(1, 6, 4)

    def model(x: Tensor) -> Tensor:
        return gru(x.unsqueeze(-1), hidden)[0][:, -1].sum(1)

    with pytest.warns(UserWarning, match="does not answer for each"):
        game = Game(model, X)
        effects, _ = game.effects(torch.tensor([1.0]))  # type: ignore[misc]
    x = X.clone().requires_grad_()
    expected = torch.autograd.grad(model(x).sum(), x)[0] * X
    assert not game.coupled and torch.allclose(effects[:, :, 0, 0], expected, atol=1e-6)


def test_batch_statistics_are_those_of_the_callers_batch_and_stay_as_they_were() -> None:
    net = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh(), nn.Linear(4, 1)).train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    members = same_for_all(MEMBERS)
    with pytest.warns(UserWarning, match="does not answer for each"):
        values = Game(net, X).values(members)
    expected = torch.stack([nn.Sequential(*net)(torch.where(m, X, 0.0)) for m in members[0]], dim=1)
    assert torch.allclose(values, expected, atol=1e-5)
    net.load_state_dict(before)
    Game(partial(net), X).values(members)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_low_precision_alone_is_no_reason_to_evaluate_rows_together() -> None:
    net = nn.Sequential(nn.Linear(5, 64), nn.Tanh(), nn.Linear(64, 1)).to(torch.bfloat16)
    for model, x in ((net, X.bfloat16()), (lambda x: smooth(x) + 1e5, X), (lambda x: smooth(x) * 1e-30, X)):
        game = Game(model, x)
        game.at(torch.ones(1))
        assert not game.together


@pytest.mark.filterwarnings("ignore:forward_func does not answer", "ignore:Sparse CSR tensor support")
@pytest.mark.parametrize("sparse", [torch.Tensor.to_sparse, torch.Tensor.to_sparse_csr])
def test_a_sparse_argument_of_all_rows(sparse: Callable[[Tensor], Tensor]) -> None:
    game = Game(lambda x, mix: torch.tanh(mix @ torch.tanh(x @ W)).sum(1), X, additional_forward_args=sparse(MIX))
    expected = torch.stack([graph(torch.where(m, X, 0.0)) for m in MEMBERS[0]], dim=1)
    assert torch.allclose(game.values(MEMBERS[:1].expand(6, 7, 5))[..., 0], expected)


def test_a_single_value_keeps_its_precision() -> None:
    x = torch.ones(2, 3, dtype=torch.float64) / 3
    assert torch.equal(Game(lambda x: x.sum(1), x).at(torch.ones(1)).flatten(), x.sum(1))


@pytest.mark.filterwarnings("ignore:forward_func does not answer")
def test_players_of_rows_that_belong_together_are_changed_in_all_rows_at_once() -> None:
    masks = torch.tensor(
        [[0, 0, 2, 5, 5], [5, 2, 2, 0, 0], [2, 2, 2, 2, 2], [0, 2, 5, 5, 5], [0, 0, 0, 0, 7], [5, 0, 5, 0, 5]]
    )
    game = Game(graph, X, feature_mask=masks)
    assert game.players.count == 4 and game.mask.all()
    members = torch.tensor([[[True, False, True, False]]]).expand(6, 1, 4)
    kept = (masks == 0) | (masks == 5)
    assert torch.allclose(game.values(members)[:, 0, 0], graph(torch.where(kept, X, 0.0)))


@pytest.mark.filterwarnings("ignore:forward_func does not answer")
@pytest.mark.parametrize("limit", [None, 2, 3, 6])
@pytest.mark.parametrize("n_rows", [1, 2, 3, 6])
def test_a_model_of_one_size_of_batch_is_never_given_another(n_rows: int, limit: int | None) -> None:
    x = X[:n_rows]

    def fixed(x: Tensor) -> Tensor:
        if len(x) != n_rows:
            raise ValueError(f"{len(x)} rows")
        return smooth(x)

    game = Game(fixed, x, max_rows=limit)
    wanted = torch.zeros(n_rows, 7, dtype=torch.bool)
    wanted[0, 2:5] = True
    game.at(torch.ones(1))
    values = game.values(MEMBERS[:n_rows], wanted)
    assert torch.allclose(values[0, 2, 0], smooth(torch.where(MEMBERS[:1, 2], x[:1], 0.0))[0], atol=1e-6)


def of_at_most(limit: int) -> Callable[[Tensor], Tensor]:
    def model(x: Tensor) -> Tensor:
        if len(x) > limit:
            raise ValueError(f"{len(x)} rows")
        return smooth(x)

    return model


@pytest.mark.parametrize("limit", [1, 2, 6, 9])
def test_a_model_of_few_rows_at_once_is_given_no_more(limit: int) -> None:
    with pytest.warns(UserWarning, match="failed on more than [1-9] rows at once .ValueError"):
        game = Game(of_at_most(limit), X)
        values, gradients = game.values(MEMBERS), game.gradients(torch.tensor([0.25, 1.0]))
    assert not game.together and gradients is not None
    plain = Game(smooth, X)
    assert torch.allclose(values, plain.values(MEMBERS))
    assert torch.allclose(gradients[0], plain.gradients(torch.tensor([0.25, 1.0]))[0])  # type: ignore[index]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        game.values(~MEMBERS)


def test_what_fails_on_single_rows_too_is_the_first_error() -> None:
    called = []

    def broken(x: Tensor) -> Tensor:
        called.append(len(x))
        raise ValueError(f"{len(x)} rows")

    with pytest.raises(ValueError, match=r"^6 rows$"):
        Game(broken, X).values(MEMBERS)
    assert called == [6, 1]


@pytest.mark.parametrize("n_rows", [2, 3, 6])
def test_a_row_that_acts_on_others_only_where_it_is_the_largest_is_found(n_rows: int) -> None:
    x = X[:n_rows] + 2.0
    game = Game(lambda x: smooth(x) - x.sum(1).max(), x)
    with pytest.warns(UserWarning, match="does not answer for each"):
        game.at(torch.ones(1))
    assert game.together


def squeezed(x: Tensor) -> Tensor:
    return smooth(x).unsqueeze(1).squeeze()


def hooked(x: Tensor) -> Tensor:
    hidden = torch.tanh(x @ W)
    hidden.register_hook(lambda gradient: None)
    return hidden.prod(1) + x[:, 0]


def slope(x: Tensor) -> Tensor:
    """A model of forces: the slope of an energy."""
    return torch.autograd.grad(smooth(x).sum(), x, create_graph=True)[0].sum(1)


@pytest.mark.parametrize("model", [squeezed, hooked, slope])
@pytest.mark.parametrize("limit", [None, 2, 41])
def test_models_that_ask_for_more_than_a_row_or_a_value(model: Callable[[Tensor], Tensor], limit: int | None) -> None:
    game = Game(model, X, max_rows=limit)
    values, gradients = game.values(MEMBERS), game.gradients(torch.tensor([1.0]))
    for turn in range(7):
        x = torch.where(MEMBERS[:, turn], X, 0.0).requires_grad_()
        assert torch.allclose(values[:, turn, 0], model(x), atol=1e-6)
    x = X.clone().requires_grad_()
    assert not game.together and gradients is not None
    assert torch.allclose(gradients[0][..., 0, 0], torch.autograd.grad(model(x).sum(), x)[0], atol=1e-6)


def test_rows_in_any_order_each_at_one_point() -> None:
    game, rows, points = Game(smooth, X), torch.tensor([4, 0, 4, 2]), torch.tensor([0.0, 1.0, 0.3, 0.5])
    every = game.at(torch.tensor([0.0, 1.0, 0.3, 0.5]))
    assert torch.allclose(game.at_each(rows, points), every[rows, torch.arange(4)], atol=1e-6)
