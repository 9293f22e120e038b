"""The comparison of background rows: each method gives Shapley values of the mean game, at the cost it says."""

import pytest
import torch
from torch import Tensor

from captum_meta.benchmark import background
from captum_meta.benchmark.background_models import BackgroundProblem, background_problems
from captum_meta.functional import attribution_error


@pytest.fixture
def curved() -> tuple[BackgroundProblem, list[int]]:
    """A model with interactions that counts its rows, and its exact values."""
    torch.manual_seed(0)
    x, rows = torch.randn(2, 5), torch.randn(6, 5)
    counted = [0]

    def model(inputs: Tensor) -> Tensor:
        counted[0] += len(inputs)
        return inputs.sum(1) + inputs[:, 0] * inputs[:, 1]

    values = x - rows.mean(0)
    product = 0.5 * (x[:, :2] - rows[:, :2].mean(0)) * (x[:, :2] + rows[:, :2].mean(0)).flip(1)
    covariance = ((rows[:, 0] - rows[:, 0].mean()) * (rows[:, 1] - rows[:, 1].mean())).mean()
    values[:, :2] += product - 0.5 * covariance
    return BackgroundProblem(model, x, rows, values.double()), counted


@pytest.mark.parametrize("method", background.METHODS)
def test_all_methods_explain_the_same_game(method, curved) -> None:
    problem, counted = curved
    values = background.METHODS[method](problem, 150, 0)
    ends = 2 * (30 if method == "permutations" else 1) + 2 * len(problem.background) + 3
    if method != "mean of explanations":  # whose gradients count three
        assert counted[0] <= 2 * (150 + ends)
    assert float(attribution_error(values.double(), problem.values)) < (1e-3 if method == "MetaKernelShap" else 0.1)
    torch.testing.assert_close(values.sum(1).double(), problem.values.sum(1), rtol=1e-4, atol=1e-4)


def test_shap_is_given_coalitions_until_it_is_as_exact(curved) -> None:
    problem, _ = curved
    assert background.shap_evaluations(problem, 10.0) == 6 * 6
    assert background.shap_evaluations(problem, 0.0) == 30 * 6


def test_problems_are_their_seed() -> None:
    make = background_problems(1)["boosted trees, logit, M=8, K=50"]
    torch.manual_seed(5)
    before = torch.get_rng_state()
    one, two = make(), make()
    assert torch.equal(before, torch.get_rng_state())
    assert torch.equal(one.values, two.values) and one.values.shape == (8, 8)
    total = one.model(one.inputs) - one.model(one.background).mean()
    torch.testing.assert_close(one.values.sum(1), total.double(), rtol=1e-4, atol=1e-4)


def test_the_ratios_of_all_models_are_summed_up() -> None:
    table = background.summary({16: ([0.1, 0.4], [8.0, 2.0]), 64: ([0.5], [])})
    assert [list(column.cells) for column in table.columns[1:]] == [
        ["0.2 (0.1 to 0.4)", "0.5 (0.5 to 0.5)"],
        ["4 (2 to 8)", ""],
    ]


def test_errors_after_adapting_stand_beside_those_without(curved) -> None:
    problem, _ = curved
    table = background.adaptation({"curved": lambda: problem}, [3])
    assert [column.header for column in table.columns] == ["model", "evaluations", "not adapted", "after 3 rows"]
    before, after = ([float(cell) for cell in column.cells] for column in list(table.columns)[2:])
    assert before[0] == pytest.approx(background.errors(problem, background.ours, 20), abs=1e-4)
    assert sum(after) < sum(before)
