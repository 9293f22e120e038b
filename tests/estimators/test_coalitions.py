import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from captum_meta.estimators import plan_coalitions
from captum_meta.estimators.coalitions import MAX_TELLING
from captum_meta.estimators.kernel_sampling import other_pairs


def plan(n_players: int, budget: int, seed: int = 0, keys: tuple[int, ...] = (3, 4)) -> torch.Tensor:
    everyone = torch.ones(len(keys), n_players, dtype=torch.bool)
    members, measured = plan_coalitions(everyone, budget, seed, torch.tensor(keys))
    assert measured.all()
    return members


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 14), st.integers(0, 300), st.integers(0, 5))
def test_budget_is_spent_on_different_coalitions_border_first(n_players: int, budget: int, seed: int) -> None:
    members = plan(n_players, budget, seed)
    available = 2**n_players - 2
    assert min(budget, available) - 1 <= members.shape[1] <= min(budget, available)
    for row in members:
        sizes = row.sum(-1)
        assert ((sizes > 0) & (sizes < n_players)).all()
        assert len(row.unique(dim=0)) == len(row)
        border = ((sizes == 1) | (sizes == n_players - 1)).sum()
        assert border >= min(budget, 2 * n_players, available) - 1


@given(st.integers(4, 30), st.integers(0, 40))
@settings(max_examples=30, deadline=None)
def test_coalitions_come_with_their_complements(n_players: int, extra_pairs: int) -> None:
    members = plan(n_players, 2 * n_players + 2 * extra_pairs)
    assert torch.equal(members[:, ::2], ~members[:, 1::2])


def test_a_row_does_not_depend_on_its_batch_and_rows_differ() -> None:
    together = plan(10, 60, keys=(3, 4))
    assert torch.equal(plan(10, 60, keys=(4,))[0], together[1])
    assert not torch.equal(together[0], together[1])
    assert not torch.equal(plan(10, 60, seed=1), together)


def test_ragged_rows_use_only_their_players() -> None:
    players = torch.tensor([[True, True, True, True, True], [False, True, True, False, True]])
    members, measured = plan_coalitions(players, 100, 0, torch.arange(2))
    assert measured.sum(-1).tolist() == [30, 6]
    assert not (members & ~players.unsqueeze(1)).any()
    assert len(members[1, measured[1]].unique(dim=0)) == 6


def test_freely_chosen_coalitions_are_different_pairs_of_each_rows_own_players() -> None:
    players = torch.ones(3, 20, dtype=torch.bool)
    players[2, [0, 7, 9]] = False
    keys, freely = torch.tensor([3, 4, 3]), torch.tensor([True, False, True])
    members, measured = plan_coalitions(players, 41, 0, keys, freely=freely)
    assert measured.all() and members.shape == (3, 40, 20)
    assert torch.equal(members[0, ::2], ~members[0, 1::2]) and not (members & ~players.unsqueeze(1)).any()
    assert all(len(row.unique(dim=0)) == 40 for row in members)
    border = ((members.sum(-1) == 1) | (members.sum(-1) == players.sum(1, keepdim=True) - 1)).sum(1)
    assert border[1] == 40 and border[0] < 20 and border[2] < 20
    alone, _ = plan_coalitions(players[2:], 41, 0, keys[2:], freely=freely[2:])
    assert torch.equal(alone[0], members[2])


def test_small_budget_measures_the_players_of_highest_priority() -> None:
    players = torch.ones(1, 6, dtype=torch.bool)
    priority = torch.tensor([[0.0, 5.0, 1.0, 3.0, 0.5, 2.0]])
    members, _ = plan_coalitions(players, 4, 0, torch.tensor([1]), priority)
    assert members[0, 1::2].nonzero()[:, 1].tolist() == [1, 3]
    assert (~members[0, ::2]).nonzero()[:, 1].tolist() == [1, 3]


def test_beyond_the_telling_ones_sizes_share_the_budget_by_kernel_mass_and_small_ones_are_exhausted() -> None:
    members = plan(24, 2 * MAX_TELLING + 4000, keys=(3,))[0, ::2]
    assert torch.equal(members[:MAX_TELLING].sum(-1), plan(24, 2 * MAX_TELLING, keys=(3,))[0, ::2].sum(-1))
    sizes = members[MAX_TELLING:].sum(-1)
    sizes = sizes.minimum(24 - sizes)
    taken = int((members[24:MAX_TELLING].sum(-1) == 2).sum())
    assert (sizes == 2).sum() == 276 - taken
    mass = {size: (0.5 if size == 12 else 1.0) / (size * (24 - size)) for size in range(2, 13)}
    pairs = (2000 - 276 + taken) / (sum(mass.values()) - mass[2])
    for size in range(3, 13):
        assert abs((sizes == size).sum().item() - pairs * mass[size]) <= 1
        turns = (sizes == size).nonzero().double().mean() / 2000
        assert abs(turns - 0.5) < 0.02


@settings(max_examples=20, deadline=None)
@given(st.integers(4, 40), st.integers(0, 200), st.integers(0, 200))
def test_a_smaller_plan_is_the_first_part_of_a_larger_one(n_players: int, pairs: int, further: int) -> None:
    first, longer = (plan(n_players, 2 * (n_players + count)) for count in (pairs, pairs + further))
    assert torch.equal(longer[:, : first.shape[1]], first)


@given(st.integers(2, 9), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_a_plan_of_everything_has_the_border_first_and_every_coalition_once(n_players: int, seed: int) -> None:
    available = 2**n_players - 2
    members = plan(n_players, available, seed)
    assert members.shape[1] == available
    assert torch.equal(members[:, ::2], ~members[:, 1::2])
    for row in members:
        assert len(row.unique(dim=0)) == available
        sizes = row[: 2 * n_players].sum(-1)
        assert ((sizes == 1) | (sizes == n_players - 1)).all()


def test_what_is_left_of_everything_is_taken_by_its_kernel_weight() -> None:
    keys = torch.arange(400)
    members = other_pairs(9, torch.zeros(0, 9, dtype=torch.bool), 0, keys)
    sizes = members[:, :10].sum(-1)
    sizes = sizes.minimum(9 - sizes)
    shares = {size: (sizes == size).double().mean().item() for size in (2, 3, 4)}
    mass = {2: 1 / 14, 3: 1 / 18, 4: 1 / 20}
    for size, share in shares.items():
        assert abs(share - mass[size] / sum(mass.values())) < 0.04
    assert not torch.equal(members[0], members[1])


def test_budgets_of_rows_are_those_of_plans_of_their_own() -> None:
    players = torch.tensor([[True] * 6, [True] * 6, [True] * 4 + [False] * 2, [True] * 6])
    budgets, keys = torch.tensor([3, 20, 100, 0]), torch.tensor([1, 2, 3, 4])
    members, measured = plan_coalitions(players, budgets, 5, keys)
    for row, budget in enumerate(budgets.tolist()):
        own, planned = plan_coalitions(players[row : row + 1], budget, 5, keys[row : row + 1])
        assert measured[row].sum() == planned.sum()
        assert torch.equal(members[row, : own.shape[1]], own[0]) and not measured[row, own.shape[1] :].any()
    with pytest.raises(ValueError, match="got -1"):
        plan_coalitions(players, torch.tensor([3, -1, 0, 0]), 5, keys)
