"""Models of unusual form: right at full budget, close to it by default, and never wrong without a warning."""

import warnings
from collections.abc import Callable
from itertools import cycle
from typing import Any

import pytest
import torch
from captum.attr import IntegratedGradients, LayerIntegratedGradients
from torch import Tensor, nn

from captum_meta.attr import (
    MetaGradientShap,
    MetaIntegratedGradients,
    MetaKernelShap,
    MetaLayerIntegratedGradients,
    MetaShapleyValueSampling,
)
from captum_meta.estimators import all_coalitions, shapley_values

M = 6
X = torch.randn(5, M, generator=torch.Generator().manual_seed(0))
W = torch.randn(M, 3, generator=torch.Generator().manual_seed(1))
FULL = {MetaKernelShap: 2**M - 2, MetaShapleyValueSampling: 11}
pytestmark = pytest.mark.filterwarnings("ignore:The model has no gradient", "ignore:forward_func")


def exact(model: Callable[..., Tensor], x: Tensor, *extra: Any) -> Tensor:
    """Row by row, over all coalitions with a baseline of 0."""
    members = all_coalitions(x.shape[1])
    return torch.stack([shapley_values(model(torch.where(members, row, 0.0), *extra).double()) for row in x]).detach()


def exact_together(model: Callable[..., Tensor], x: Tensor, *extra: Any) -> Tensor:
    """The same coalition for all rows of the batch."""
    worths = [model(torch.where(members, x, 0.0), *extra).double() for members in all_coalitions(x.shape[1])]
    return shapley_values(torch.stack(worths, dim=1)).detach()


def error(values: Tensor, wanted: Tensor) -> float:
    return float((values.double() - wanted).square().sum() / wanted.square().sum())


def smooth(x: Tensor) -> Tensor:
    return torch.tanh(x @ W).sum(1) + x[:, 0] * x[:, 1]


def cusp(x: Tensor) -> Tensor:
    """Its gradient at a baseline of 0 is NaN for every player."""
    return (x.square().sum(1).sqrt() - 1).tanh()


def indicator(x: Tensor) -> Tensor:
    """Reads missing values."""
    return smooth(torch.where(x.isnan(), 0.7, x)) + x.isnan().float() @ W[:, 0]


def rounded(x: Tensor) -> Tensor:
    """Three players whose gradient is 0 everywhere, and who matter."""
    return smooth(torch.cat([(2 * x[:, :3]).round(), x[:, 3:]], dim=1))


def hardened(x: Tensor) -> Tensor:
    """One-hot groups hardened by argmax."""
    hard = nn.functional.one_hot(x[:, :3].argmax(1), 3).to(x.dtype)
    return smooth(torch.cat([hard, x[:, 3:]], dim=1))


def missing() -> Tensor:
    x = X.clone()
    x[0, 1] = x[2, 3] = torch.nan
    return x


ALONE = {
    "cusp": (cusp, X),
    "missing": (indicator, missing()),
    "rounded": (rounded, X),
    "hardened": (hardened, X),
    "offset": (lambda x: smooth(x) + 1e4, X),
    "far below one": (lambda x: smooth(x) * 1e-30, X),
}
MIX = torch.rand(5, 5, generator=torch.Generator().manual_seed(2))
EDGES = torch.tensor([[0, 0, 1, 1, 1], [1, 0, 0, 1, 1]])
TOGETHER: dict[str, tuple[Callable[..., Tensor], Tensor, tuple[Any, ...]]] = {
    "graph": (lambda x: torch.tanh(MIX @ torch.tanh(x @ W)).sum(1), X, ()),
    "batch mean": (lambda x: smooth(x - x.mean(0)), X, ()),
    "labels": (lambda x: (smooth(x) - torch.arange(5.0)).square(), X, ()),
    "edges": (lambda x, e: smooth(torch.zeros_like(x).index_add(0, e[1], x[e[0]])), X[:2], (EDGES,)),
    "table": (lambda x, t: smooth(x * t[(x[:, 0] > 0).long()]), X, (torch.randn(5, M),)),
}


@pytest.mark.parametrize("front_end", FULL)
@pytest.mark.parametrize("name", ALONE)
def test_full_budget_is_exact_and_the_default_close(name: str, front_end: Any) -> None:
    model, x = ALONE[name]
    wanted = exact(lambda z: model(z) - model(torch.zeros_like(x[:1])), x)
    attr = front_end(model)
    assert error(attr.attribute(x, n_samples=FULL[front_end]), wanted) < 1e-5
    assert error(attr.attribute(x), wanted) < 0.02


@pytest.mark.parametrize(("name", "front_end"), [*zip(ALONE, cycle(FULL), strict=False)])
def test_gradients_alone_and_adaptation_leave_no_player_out(name: str, front_end: Any) -> None:
    """The front ends in turn, which share what they do without coalitions."""
    model, x = ALONE[name]
    wanted = exact(lambda z: model(z) - model(torch.zeros_like(x[:1])), x)
    attr = front_end(model)
    before = error(attr.attribute(x, n_samples=0), wanted)
    assert before < 0.3
    attr.adapt(torch.randn(16, M, generator=torch.Generator().manual_seed(5)))
    assert error(attr.attribute(x, n_samples=0), wanted) <= max(0.1, before)


@pytest.mark.parametrize("front_end", FULL)
@pytest.mark.parametrize("name", TOGETHER)
def test_rows_that_belong_together(name: str, front_end: Any) -> None:
    model, x, extra = TOGETHER[name]
    wanted = exact_together(model, x, *extra)
    attr = front_end(model)
    for budget, most in ((FULL[front_end], 1e-9), (None, 0.1)):
        with pytest.warns(UserWarning, match="does not answer for each of the rows alone"):
            values = attr.attribute(x, additional_forward_args=extra or None, n_samples=budget)
        assert error(values, wanted) < most


def test_players_that_act_in_large_coalitions_only_are_no_dummies() -> None:
    def model(x: Tensor) -> Tensor:
        first, second = x[:, 0] + x[:, 1] - 1.5, x[:, 2] + x[:, 3] - 1.5 - 4 * x[:, 4]
        return torch.relu(first) * 4 + torch.relu(second) * 4 + x[:, 5]

    x = torch.ones(1, 6)
    wanted = exact(model, x)
    for budget in (12, 30, 40, 50, 60, 62):
        values, estimate = MetaKernelShap(model).attribute(x, n_samples=budget, return_error_estimate=True)
        assert float(values.sum()) == pytest.approx(3.0, abs=1e-4)
        if budget >= 50:
            assert error(values, wanted) < max(0.005, float(estimate))


@pytest.mark.parametrize("offset", [0.0, 1e5])
def test_small_effects_beside_large_outputs_are_kept(offset: float) -> None:
    def model(x: Tensor) -> Tensor:
        return torch.where(x > 0.5, torch.tensor([0.05, 0.1, 0.2, 0.0]), torch.zeros(4)).sum(1) + offset

    values = MetaKernelShap(model).attribute(torch.ones(1, 4), n_samples=8)
    assert (values[0] - torch.tensor([0.05, 0.1, 0.2, 0.0])).abs().max() < 0.01 and values[0, 3] == 0


def test_beyond_256_players_gradients_alone_are_used_with_one_warning() -> None:
    attr, x = MetaKernelShap(lambda x: x.square().sum(1)), torch.rand(2, 300)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        values = attr.attribute(x)
        attr.attribute(x, n_samples=0)
    (told,) = (w for w in caught if w.category is UserWarning)
    assert str(told.message).startswith("The rows have 300 players, so only gradients are measured")
    assert told.filename == __file__ and "n_samples" in str(told.message)
    assert error(values, x.square().double()) < 1e-3


@pytest.mark.parametrize("budget", [1, 3, 5, 7, 9, 11, 31])
def test_rows_with_players_of_their_own_and_odd_budgets(budget: int) -> None:
    masks = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 2], [0, 1, 1, 2, 3, 3], [0] * 6, [0, 1, 2, 3, 3, 3]])
    values = MetaKernelShap(smooth).attribute(X, feature_mask=masks, n_samples=budget, return_input_shape=False)
    assert torch.allclose(values.sum(1), smooth(X) - smooth(torch.zeros(5, M)), atol=1e-4)


def test_a_permutation_pays_for_as_many_coalitions_as_a_row_has_players() -> None:
    masks = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 1, 1, 2, 3], [0, 0, 0, 0, 1, 2]])
    attr = MetaShapleyValueSampling(smooth)
    together = attr.attribute(X[:3], feature_mask=masks, n_samples=3)
    for row in range(3):
        alone = attr.attribute(X[row : row + 1], feature_mask=masks[row : row + 1], n_samples=3)
        assert torch.allclose(together[row], alone[0], atol=1e-5)


@pytest.mark.parametrize("front_end", FULL)
def test_rows_where_the_model_is_not_finite_are_named_and_cost_the_others_nothing(front_end: Any) -> None:
    x = X.clone()
    x[2, 0] = torch.inf
    attr = front_end(lambda x: smooth(x) * torch.where(x[:, 0].isinf(), torch.nan, 1.0))
    with pytest.warns(UserWarning, match=r"not finite .* rows \[2\]"):
        values = attr.attribute(x)
    assert values.isfinite().all(1).tolist() == [True, True, False, True, True]
    assert torch.allclose(values[3], front_end(smooth).attribute(x[3:4])[0], atol=1e-5)


def test_a_game_that_neither_gradients_nor_the_border_show_is_told_by_larger_coalitions() -> None:
    """f is 1 where the first two are in and the next two out: no player alone, nor all but one, changes anything."""

    def f(x: torch.Tensor) -> torch.Tensor:
        return (x[:, 0] * x[:, 1] * (1 - x[:, 2]) * (1 - x[:, 3])).detach().round()

    x, wanted = torch.ones(1, 6), torch.tensor([[1.0, 1.0, -1.0, -1.0, 0.0, 0.0]]) / 12
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        silent, unknown = MetaKernelShap(f).attribute(x, n_samples=12, return_error_estimate=True)
        found = [MetaKernelShap(f).attribute(x, n_samples=count, return_error_estimate=True) for count in (48, 62)]
    assert not silent.any() and unknown.isinf()
    (some, estimate), (exact, none) = found
    assert float((some - wanted).square().sum() / wanted.square().sum()) < min(0.1, float(estimate))
    assert abs(float(some.sum())) < 1e-5
    assert torch.allclose(exact, wanted, atol=1e-6) and none == 0


@pytest.mark.parametrize("budget", [3, 4, 6, 8])
def test_a_row_with_few_players_changes_nothing_for_one_with_more(budget: int) -> None:
    masks = torch.tensor([[0, 1, 2, 3, 4, 5], [0, 0, 0, 1, 1, 1], [0, 0, 1, 1, 2, 2]])
    attr = MetaKernelShap(smooth)
    together, estimates = attr.attribute(X[:3], feature_mask=masks, n_samples=budget, return_error_estimate=True)
    for row in range(3):
        here = slice(row, row + 1)
        alone, estimate = attr.attribute(X[here], feature_mask=masks[here], n_samples=budget, return_error_estimate=True)
        assert torch.allclose(together[here], alone, atol=1e-5)
        assert torch.allclose(estimates[here], estimate, rtol=1e-2, equal_nan=True)
    assert estimates[1] == 0


def test_players_that_act_in_pairs_only_are_explained_where_nothing_else_is_known() -> None:
    """f(input) is f(baseline), and no player acts alone or on all others: only two of the four together do."""

    def model(x: Tensor) -> Tensor:
        first, second, third, fourth = (x.round() > 0.5).unbind(1)
        return -(first & fourth & ~second & ~third).double()

    x = 1 + 0.01 * torch.randn(8, 4, generator=torch.Generator().manual_seed(0))
    wanted = exact(model, x)
    values = MetaKernelShap(model).attribute(x, n_samples=12)  # 2 of 14 are left out, others for other rows
    seen = (values != 0).any(1)
    assert seen.any() and error(values[seen], wanted[seen]) < 0.5 and values.sum(1).abs().max() < 1e-5


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_outputs_of_the_whole_batch_take_the_place_of_its_rows(n_outputs: int) -> None:
    def model(x: Tensor) -> Tensor:
        return smooth(x).sum() * torch.arange(1.0, 1.0 + n_outputs)

    values = MetaShapleyValueSampling(model).attribute(X[:2], n_samples=11)
    wanted = exact_together(lambda x: smooth(x).sum().reshape(1), X[:2])
    assert values.shape == (n_outputs, M)
    for k in range(n_outputs):
        assert error(values[k : k + 1], (k + 1) * wanted) < 1e-9


def test_a_frozen_script_is_explained_as_what_it_was_made_of() -> None:
    net = torch.nn.Sequential(torch.nn.Linear(M, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)).eval()
    frozen = torch.jit.freeze(torch.jit.script(net))  # type: ignore[no-untyped-call]
    for front_end in (MetaKernelShap, MetaIntegratedGradients):
        torch.testing.assert_close(front_end(frozen).attribute(X, target=0), front_end(net).attribute(X, target=0))


def test_gradient_shap_of_very_many_players_completes_without_its_network() -> None:
    x, baselines = torch.randn(2, 600), torch.randn(3, 600)
    values = MetaGradientShap(lambda x: (x / 20).square().sum(1).tanh()).attribute(x, baselines, n_samples=300)
    change = [(x / 20).square().sum(1).tanh() - (b / 20).square().sum().tanh() for b in baselines]
    assert torch.allclose(values.sum(1), torch.stack(change).mean(0), atol=0.02)


SIMPLE = {
    "weighted sum": lambda x: x @ torch.arange(1.0, 7.0),
    "sum of waves": lambda x: (5 * x).sin().sum(1),
    "sum of steps": lambda x: (3 * x).round() @ torch.arange(1.0, 7.0),
    "products": lambda x: x[:, 0] * x[:, 1] + 3 * x[:, 2] * x[:, 5],
}


@pytest.mark.parametrize("name", SIMPLE)
def test_the_default_call_of_sums_and_of_smooth_pairs_is_exact_as_captums_is(name: str) -> None:
    x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    attr = MetaKernelShap(SIMPLE[name])
    torch.testing.assert_close(attr.attribute(x), attr.attribute(x, n_samples=62), rtol=1e-4, atol=1e-4)


def cusp(x: Tensor) -> Tensor:
    return torch.cosine_similarity(x, torch.arange(1.0, 7.0).unsqueeze(0), eps=1e-4)


def scrambled(x: Tensor) -> Tensor:
    return (x @ (12.9 * torch.arange(1.0, 7.0).sqrt())).sin().mul(4e4).frac()


@pytest.mark.parametrize("model", [cusp, scrambled])
def test_gradients_that_tell_of_a_spot_alone_do_no_harm(model: Callable[[Tensor], Tensor]) -> None:
    x = torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    attr = MetaKernelShap(model)
    exact = attr.attribute(x, n_samples=62)
    assert (attr.attribute(x) - exact).abs().amax() < 0.75, "of values between -1 and 1"


class Padded(nn.Module):
    """A transformer whose last tokens of some rows are padding, with a mean over all of them."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.into, self.encoder, self.out = nn.Linear(2, 8), nn.TransformerEncoder(layer, 2), nn.Linear(8, 2)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        encoded: Tensor = self.encoder(self.into(x), src_key_padding_mask=padding)
        values: Tensor = self.out(encoded.mean(1))
        return values


@pytest.mark.parametrize("n_steps", [None, 10])
@pytest.mark.parametrize(
    ("method", "front_end", "layers"),
    [
        (IntegratedGradients, MetaIntegratedGradients, ()),
        (LayerIntegratedGradients, MetaLayerIntegratedGradients, ("into",)),
    ],
)
def test_paths_of_transformers_with_padding_are_those_of_the_model_that_is_differentiated(
    method: Any, front_end: Any, layers: tuple[str, ...], n_steps: int | None
) -> None:
    torch.manual_seed(1)
    model, x = Padded().eval(), torch.randn(4, 5, 2)
    padding = torch.arange(5) >= torch.tensor([[3], [3], [5], [5]])
    right, values = (
        made(model, *map(model.get_submodule, layers)).attribute(
            x, target=0, additional_forward_args=(padding,), n_steps=steps
        )
        for made, steps in ((method, 500), (front_end, n_steps))
    )
    assert error(values.detach(), right.detach().double()) < 1e-3
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize("arguments", [{}, {"n_samples": 0}, {"n_samples": 40}, {"tolerance": 1e-6}], ids=str)
@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_a_row_that_is_its_baseline_gets_nothing_though_f_is_rounded(front_end: Any, arguments: dict[str, Any]) -> None:
    """One input is rounded in two ways, by its place in a batch."""

    def model(x: Tensor) -> Tensor:
        return x.tanh().prod(1) + x.sum(1) * (1 + 1e-6 * torch.arange(len(x)).sin())

    x = torch.linspace(1, 2, 24).reshape(2, 12)
    values = front_end(model).attribute(x, torch.stack([x[0] - 1, x[1]]), **arguments)
    assert values[0].all() and not values[1].any()
