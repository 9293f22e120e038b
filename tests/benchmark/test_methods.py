"""Methods cost what they were given, are seeded, and get it right where the budget covers everything."""

import numpy as np
import pytest
import torch

from captum_meta._model import Counted
from captum_meta.benchmark.methods import BORDER_MEAN, GRADIENT_MEAN, PATH, SHAPLEY, Method, path_learner, shapley_learner
from captum_meta.benchmark.modern_peers import MODERN
from tests.attr.conftest import probe
from tests.benchmark.conftest import brute_force, small_net, small_problem, untrained

M = 6
OTHERS = (GRADIENT_MEAN, BORDER_MEAN, *MODERN)
PEERS = {name: method for name, method in SHAPLEY.items() if not name.startswith("Meta") and name not in OTHERS}
OURS = shapley_learner(untrained("shapley"), adapt=False)
ADAPTED = shapley_learner(untrained("shapley"), adapt=True)


def spent(method: Method, budget: int, **changes: object) -> float:
    """Evaluations per row."""
    model = Counted(small_net(M))
    problem = small_problem(M, n_rows=4, model=model, **changes)
    model.evaluations = 0
    method(problem, budget)
    return model.evaluations / 4


@pytest.mark.parametrize("multiple", [2, 4, 8])
@pytest.mark.parametrize("name", PEERS)
def test_peers_spend_their_budget_and_no_more(name: str, multiple: int) -> None:
    budget = multiple * M + 9
    evaluations = spent(PEERS[name], budget)
    assert evaluations <= budget
    granularity = 2 * M if "ermutation" in name or "Sampling" in name or "SVARM" in name else 1
    assert evaluations > budget - 3 - granularity


@pytest.mark.parametrize("multiple", [0, 2, 5])
def test_ours_spend_three_gradients_and_the_coalitions(multiple: int) -> None:
    assert spent(OURS, multiple * M + 9) == multiple * M + 9 + probe(4) / 4


def test_without_a_gradient_ours_spend_two_forwards_and_the_coalitions() -> None:
    net = small_net(M)
    model = Counted(lambda x: torch.as_tensor(net(x).detach().numpy()))
    problem = small_problem(M, n_rows=4, model=model, has_gradient=False)
    OURS(problem, 4 * M + problem.base_cost)
    failed_attempt = 4 * 3 + 4  # with gradients, then without
    assert model.evaluations - failed_attempt == 4 * (4 * M + 2) + probe(4)


def test_plain_means_spend_what_their_names_say() -> None:
    assert spent(SHAPLEY[GRADIENT_MEAN], 0) == 9
    assert spent(SHAPLEY[BORDER_MEAN], 0) == 9 + 2 * M


@pytest.mark.parametrize(
    ("method", "evaluations"),
    [
        (path_learner(untrained("path"), adapt=False), 3 * 5 + 3 + probe(4) / 4),
        (PATH["Captum IntegratedGradients"], 3 * 5),
        (PATH["Captum, one more, completed"], 3 * 6 + 2),
    ],
)
def test_path_methods_spend_gradients(method: Method, evaluations: float) -> None:
    assert spent(method, 5) == evaluations


@pytest.mark.parametrize("name", [name for name in PEERS if "Kernel" in name and "Captum" not in name])
def test_all_coalitions_give_exact_values(name: str) -> None:
    problem = small_problem(M)
    assert torch.allclose(PEERS[name](problem, 2**M).double(), brute_force(problem), atol=1e-3)
    assert torch.allclose(OURS(problem, 2**M + 9).double(), brute_force(problem), atol=1e-4)


@pytest.mark.parametrize("name", PEERS)
def test_errors_fall_with_the_budget(name: str) -> None:
    problem = small_problem(M, n_rows=8)
    right = OURS(problem, 2**M + 9)
    few, many = ((PEERS[name](problem, budget) - right).square().sum() for budget in (2 * M + 9, 60 * M))
    assert many < few


@pytest.mark.parametrize("method", [*PEERS.values(), ADAPTED], ids=[*PEERS, "adapted"])
def test_methods_are_seeded_and_leave_global_random_numbers_alone(method: Method) -> None:
    problem = small_problem(M)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = method(problem, 2 * M + 9)
    assert torch.equal(states[0], torch.get_rng_state())
    assert (states[1] == np.random.get_state()[1]).all()
    torch.rand(3)
    np.random.rand(3)
    assert torch.equal(first, method(problem, 2 * M + 9))


def test_groups_of_features_are_players_to_every_method() -> None:
    mask = torch.tensor([[0, 0, 1, 1, 2, 2]])
    problem = small_problem(M)
    arguments = {**problem.arguments, "feature_mask": mask}
    grouped = small_problem(M, arguments=arguments)
    right = OURS(grouped, 9 + 6)
    for name, method in PEERS.items():
        values = method(grouped, 60)
        assert values.shape == right.shape == (3, 3)
        assert (values - right).abs().max() < 0.3 * right.abs().max(), name
