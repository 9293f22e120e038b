"""The support set: what it may be, what it changes, and what is refused."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from captum.attr import FeatureAblation, IntegratedGradients, KernelShap, Saliency

from captum_meta.attr import MetaAttribution, MetaGradientShap, MetaIntegratedGradients, MetaKernelShap
from captum_meta.evidence import Game, measure_shapley
from captum_meta.learners import Ridge, list_learners
from captum_meta.nn import PathExplainer, ShapleyExplainer
from captum_meta.types import Explanations
from tests.attr.conftest import CountingModel


def shapley(model: object = None) -> MetaKernelShap:
    return MetaKernelShap(model or CountingModel(), learner=Ridge(ShapleyExplainer(16, 1)).eval())  # type: ignore[arg-type]


def test_what_it_is_and_what_it_cost_can_be_read() -> None:
    model = torch.nn.Linear(4, 1)
    attr = MetaKernelShap(model, learner="zero-shot")
    assert repr(attr) == "MetaKernelShap(Linear, learner=ZeroShot)"
    attr.adapt(torch.randn(3, 4), target=0)
    spent = attr.adaptation.evaluations
    assert repr(attr) == f"MetaKernelShap(Linear, learner=ZeroShot, adapted to 3 rows for {spent:,} evaluations)"
    assert repr(attr.reset()) == "MetaKernelShap(Linear, learner=ZeroShot)"


def test_exact_references_are_computed_and_help() -> None:
    weights = torch.randn(5, 5)
    attr = shapley(lambda x: torch.tanh(x @ weights).prod(1) + x[:, 0] * x[:, 1] * x[:, 2])
    rows, queries = torch.randn(24, 5), torch.randn(40, 5)
    reference = attr.attribute(queries, n_samples=30)
    before = (attr.attribute(queries, n_samples=0) - reference).square().sum()
    after = (attr.adapt(rows).attribute(queries, n_samples=0) - reference).square().sum()
    assert after < 0.9 * before
    again = attr.reset().attribute(queries, n_samples=0)
    assert torch.allclose((again - reference).square().sum(), before)


def test_calls_add_up() -> None:
    model, rows = CountingModel(), torch.randn(12, 6)
    values = torch.randn(12, 6)
    once = shapley(model).adapt(rows, target=0, attributions=values)
    twice = shapley(model).adapt(rows[:5], target=0, attributions=values[:5])
    twice.adapt(rows[5:], target=0, attributions=values[5:])
    x = torch.randn(3, 6)
    assert torch.allclose(once.attribute(x, target=0), twice.attribute(x, target=0), atol=1e-5)


def test_rows_of_other_lengths() -> None:
    def count(x: torch.Tensor) -> torch.Tensor:
        return x.tanh().sum(1) + x[:, 0] * x[:, -1]

    attr = shapley(count)
    attr.adapt(torch.randn(8, 4)).adapt(torch.randn(8, 6))
    assert attr.attribute(torch.randn(2, 5)).shape == (2, 5)
    assert attr.attribute(torch.randn(2, 7)).shape == (2, 7)


def test_groups_may_be_given_as_players_or_as_elements() -> None:
    model, rows, mask = CountingModel(), torch.randn(6, 6), torch.tensor([[0, 0, 1, 1, 2, 2]])
    values = torch.randn(6, 3)
    one = shapley(model).adapt(rows, target=0, feature_mask=mask, attributions=values)
    other = shapley(model).adapt(rows, target=0, feature_mask=mask, attributions=values[:, mask[0]])
    x = torch.randn(2, 6)
    first = one.attribute(x, target=0, feature_mask=mask)
    assert torch.allclose(first, other.attribute(x, target=0, feature_mask=mask))


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (torch.zeros(4, 5), AssertionError),
        (torch.zeros(3, 6), AssertionError),
        (torch.full((4, 6), torch.nan), ValueError),
    ],
)
def test_bad_attributions_leave_the_support_set_as_it_was(values: torch.Tensor, error: type[Exception]) -> None:
    attr = shapley().adapt(torch.randn(8, 6), target=0, attributions=torch.randn(8, 6))
    x = torch.randn(3, 6)
    before = attr.attribute(x, target=0)
    with pytest.raises(error, match="attributions"):
        attr.adapt(torch.randn(4, 6), target=0, attributions=values)
    assert torch.equal(attr.attribute(x, target=0), before)


def test_an_empty_support_set_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one example"):
        shapley().adapt(torch.zeros(0, 6), target=0)


def test_any_captum_method_may_teach() -> None:
    model = CountingModel()
    attr = shapley(model).adapt(torch.randn(4, 6), target=0, teacher=KernelShap(model), teacher_kwargs={"n_samples": 40})
    assert attr.attribute(torch.randn(2, 6), target=0).shape == (2, 6)
    path = MetaIntegratedGradients(model, learner=Ridge(PathExplainer(16, 1)).eval())
    path.adapt(torch.randn(4, 6), target=0, teacher=IntegratedGradients(model))
    assert path.attribute(torch.randn(2, 6), target=0, n_steps=4).shape == (2, 6)


def test_the_reference_of_paths_is_a_long_one() -> None:
    model, rows = CountingModel(), torch.randn(6, 6)
    path = MetaIntegratedGradients(model, learner=Ridge(PathExplainer(16, 1)).eval()).adapt(rows, target=0)
    long = IntegratedGradients(model).attribute(rows, target=0, n_steps=300)
    assert torch.allclose(path.attribute(rows, target=0, n_steps=10), long, atol=1e-3)


@pytest.mark.parametrize("teacher", [FeatureAblation, Saliency])
def test_other_methods_are_learned_from_a_few_rows(teacher: type) -> None:
    model = CountingModel()
    attr = MetaAttribution(model, teacher(model))
    with pytest.raises(RuntimeError, match="call adapt"):
        attr.attribute(torch.randn(2, 6), target=0)
    attr.adapt(torch.randn(24, 6), target=0)
    x = torch.randn(20, 6)
    expected = teacher(model).attribute(x, target=0)
    error = (attr.attribute(x, target=0) - expected).square().sum() / expected.square().sum()
    assert error < 0.2


def test_gradient_shap_says_that_it_does_not_adapt() -> None:
    with pytest.raises(NotImplementedError, match="MetaIntegratedGradients"):
        MetaGradientShap(CountingModel()).adapt(torch.randn(2, 6), target=0)


def test_support_rows_around_which_the_model_is_not_finite_are_learned_from_all_the_same() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        return torch.where((x[:, 0] == 5.0) & (x[:, 1] == 0), torch.nan, x.square().sum(1))

    x = torch.randn(4, 3)
    x[2, 0] = 5.0
    attr = MetaKernelShap(broken).adapt(x, attributions=x.square())
    assert attr.attribute(x).isfinite().all()


def test_support_rows_at_which_the_model_is_not_finite_are_named() -> None:
    x = torch.randn(4, 3)
    x[2, 0] = 5.0
    with pytest.raises(ValueError, match=r"not finite at the support rows \[2\]"):
        MetaKernelShap(lambda x: torch.where(x[:, 0] > 4, torch.nan, x.sum(1))).adapt(x, attributions=x)


def test_coalitions_of_support_rows_that_are_not_finite_teach_nothing() -> None:
    def broken(x: torch.Tensor) -> torch.Tensor:
        inside = (x[:, :2] != 0).all(1) & (x[:, 2:] == 0).all(1)
        return torch.where(inside, torch.nan, x[:, 0] * x[:, 1] * x[:, 2] + x[:, 3].sin() + x[:, 4])

    x = torch.randn(8, 5)
    attr = MetaKernelShap(broken).adapt(x, attributions=x)
    assert attr.attribute(torch.randn(6, 5), n_samples=0).isfinite().all()


def test_rows_whose_reference_is_not_finite_are_named() -> None:
    x = torch.randn(4, 3)
    x[2, 0] = 5.0
    with pytest.raises(ValueError, match=r"rows \[2\] are not finite"):
        shapley(lambda x: torch.where(x[:, 0] > 4, torch.nan, x.prod(1))).adapt(x)


def test_rows_of_very_many_players_want_groups_or_a_teacher() -> None:
    attr, x = shapley(lambda x: x.sum((1, 2, 3))), torch.ones(2, 3, 32, 32)
    with pytest.raises(ValueError, match=r"3072 players would take 98304 evaluations of each.*pass a feature_mask"):
        attr.adapt(x)
    assert attr.adapt(x, attributions=x).attribute(x).shape == x.shape


@pytest.mark.parametrize("name", list_learners())
def test_learners_do_not_depend_on_where_they_are_used(name: str) -> None:
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)), torch.randn(12, 4)

    def answer(attr: MetaKernelShap | None = None) -> torch.Tensor:
        attr = MetaKernelShap(model, learner=name) if attr is None else attr
        return attr.adapt(x[:8], target=0).attribute(x[8:], target=0, n_samples=0)

    expected = answer()
    with torch.inference_mode():
        assert torch.equal(answer(), expected)
    torch.set_default_dtype(torch.float64)
    try:
        attr = MetaKernelShap(model, learner=name)
    finally:
        torch.set_default_dtype(torch.float32)
    assert torch.allclose(answer(attr), expected, atol=1e-6)


@pytest.mark.parametrize("starts", ["baselines", "background"])
@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaIntegratedGradients])
def test_what_is_written_into_the_support_rows_later_is_not_seen(front_end: type, starts: str) -> None:
    net, x = torch.nn.Linear(4, 2), torch.randn(2, 4)
    own = {"additional_forward_args": torch.rand(8), "target": torch.ones(8, dtype=torch.long)}
    given = {"inputs": torch.randn(8, 4), starts: torch.randn(8, 4), **(own if starts == "baselines" else {"target": 1})}

    def model(rows: torch.Tensor, factors: torch.Tensor | float = 1.0) -> torch.Tensor:
        return (net(rows) * torch.as_tensor(factors).unsqueeze(-1)).sin().cumsum(-1)

    asked = {"inputs": x, "target": 1, starts: given[starts][: 2 if starts == "baselines" else 8].clone()}
    asked |= {"n_samples": 5} if front_end is MetaKernelShap else {"n_steps": 3}
    left, touched = (front_end(model).adapt(**given) for _ in range(2))
    expected = left.attribute(**asked)
    for value in given.values():
        if isinstance(value, torch.Tensor):
            value.zero_()
    assert torch.equal(touched.attribute(**asked), expected)


def test_threads_may_share_a_front_end() -> None:
    model, x = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1)), torch.randn(12, 4)
    attr = MetaKernelShap(model, learner="learned-optimizer").adapt(x[:8], target=0)
    budgets = [0, 2, 4, 6] * 2
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda n: attr.attribute(x[8:], target=0, n_samples=n), budgets))
    for n, values in zip(budgets, together, strict=True):
        assert torch.equal(values, attr.attribute(x[8:], target=0, n_samples=n))


@pytest.mark.usefixtures("unchecked")
def test_a_learner_by_name_that_is_none_says_what_to_pass() -> None:
    with pytest.raises(ValueError, match=r"no learner 'ridge' for general attributions: pass the path"):
        MetaAttribution(torch.sum, FeatureAblation(torch.sum), learner="ridge")
    with pytest.raises(TypeError, match=r"pass one of \["):
        MetaKernelShap(torch.sum, learner=Ridge)  # type: ignore[arg-type]


@pytest.mark.parametrize("learner", [None, "matching"])
def test_another_number_of_coalitions_asks_nothing_more_of_the_support_rows(learner: str | None) -> None:
    model, x = CountingModel(), torch.randn(3, 6)
    attr = MetaKernelShap(model, learner=learner).adapt(torch.randn(8, 6), target=0)
    plain = MetaKernelShap(model, learner=learner)
    for n_samples in (4, 0, 12, 40):
        counts = []
        for method in (attr, plain):
            model.rows = 0
            method.attribute(x, target=0, n_samples=n_samples)
            counts.append(model.rows)
        assert counts[0] == counts[1]


def test_another_number_of_gradients_costs_these_gradients_alone_on_the_support_rows() -> None:
    model, x = CountingModel(), torch.randn(3, 6)
    attr = MetaIntegratedGradients(model).adapt(torch.randn(8, 6), target=0)
    plain = MetaIntegratedGradients(model)
    counts = []
    for method in (attr, plain):
        model.rows = 0
        method.attribute(x, target=0, n_steps=5)
        counts.append(model.rows)
    assert counts[0] - counts[1] == 8 * 5


@pytest.mark.parametrize("first", [0, 4, 30])
def test_support_rows_are_measured_as_queries_are(first: int) -> None:
    """By hand: a learner adapted on what a budget measures answers for queries of this budget, whichever came before."""
    model, rows, queries = CountingModel(), torch.randn(24, 6), torch.randn(4, 6)
    values = 2 * shapley(model).attribute(rows, target=0, n_samples=62)
    attr = shapley(model).adapt(rows, target=0, attributions=values)
    attr.attribute(queries, target=0, n_samples=first)
    for budget in (0, 4, 12):
        support = Explanations(measure_shapley(Game(model, rows, None, 0), budget), values)
        state = attr.learner.adapt(support)
        right = attr.learner.explain(state, measure_shapley(Game(model, queries, None, 0), budget)).attributions
        found = attr.attribute(queries, target=0, n_samples=budget)
        assert torch.allclose(found, right, atol=1e-4)
        assert not torch.allclose(found, shapley(model).attribute(queries, target=0, n_samples=budget), atol=1e-2)
