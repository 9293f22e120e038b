"""The benchmark of interactions: its truth, and that each method converges to it within the budget it is given."""

import pytest
import torch

from captum_meta._model import Counted
from captum_meta.benchmark.interactions import PEERS, compare, ours, with_truth
from captum_meta.benchmark.problem import Problem
from tests.attr.conftest import probe
from tests.benchmark.conftest import small_net

M = 6


@pytest.fixture
def problem() -> Problem:
    net = small_net(M)
    return Problem(model=net, arguments={"inputs": torch.randn(2, M), "baselines": torch.zeros(1, M), "target": 1})


@pytest.mark.parametrize("name", ["KernelSHAPIQ", "SVARMIQ"])
def test_peers_are_exact_where_all_coalitions_are_known(problem: Problem, name: str) -> None:
    pytest.importorskip("shapiq")
    found = PEERS[name](problem, 2**M)
    assert torch.allclose(found.double(), with_truth("small", problem).values, atol=1e-4)


@pytest.mark.parametrize("name", ["KernelSHAPIQ", "SVARMIQ", "PermutationSamplingSII"])
def test_peers_spend_what_ours_spends(problem: Problem, name: str) -> None:
    pytest.importorskip("shapiq")
    spent = {}
    for label, method in (("ours", ours), (name, PEERS[name])):
        counted = Counted(problem.model)
        method(Problem(model=counted, arguments=problem.arguments), 30)
        spent[label] = counted.evaluations
    assert spent["ours"] == 2 * (30 + 9) + probe(2)
    assert 2 * 20 < spent[name] <= 2 * (30 + 9)


def test_budgets_that_cover_all_coalitions_are_left_out(problem: Problem) -> None:
    found = compare(with_truth("small", problem), {"ours": ours})
    assert list(found) == [4, 8]
    assert found[8]["ours"] < found[4]["ours"] < 0.2
