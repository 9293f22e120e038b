"""Who is called a dummy, against the definition: a player whose joining changes no coalition."""

import pytest
import torch
from torch import Tensor

from captum_meta.estimators import all_coalitions
from captum_meta.evidence import Game, measure_shapley
from captum_meta.evidence.dummies import acting


def gate(x: Tensor) -> Tensor:
    """Players 0 to 2 act only together with others, 3 never, 4 always."""
    return 2 * torch.relu(x[:, 0] + x[:, 1] - 1.5 - 4 * x[:, 2]) + x[:, 4]


def told(members: Tensor, worths: Tensor, still: Tensor, noise: float = 0.0) -> list[int]:
    seen = torch.ones_like(worths, dtype=torch.bool)[None, :, None]
    found = acting(still[None, :, None], members[None], worths[None, :, None], seen, torch.full((1, 1), noise))
    return found.flatten().nonzero().flatten().tolist()


def test_of_all_coalitions_those_act_whose_joining_changes_one() -> None:
    members = all_coalitions(5)
    worths = gate(members.float())
    assert told(members, worths, torch.tensor([True, True, True, True, False])) == [0, 1, 2]


def test_rounding_is_no_contradiction() -> None:
    members = all_coalitions(4)
    worths = members[:, 0] + 1e-7 * torch.rand(16, generator=torch.Generator().manual_seed(0))
    still = torch.tensor([False, True, True, True])
    assert told(members, worths, still, noise=1e-6) == [] and told(members, worths, still) == [1, 2, 3]


def test_where_several_may_be_to_blame_all_are_but_for_those_of_whom_it_is_known() -> None:
    members = torch.tensor([[0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0]]).bool()
    still = torch.ones(4, dtype=torch.bool)
    assert told(members, torch.tensor([0.0, 1.0, 0.0]), still) == [0, 1]
    known = torch.cat([members, torch.tensor([[1, 0, 0, 0]]).bool()])
    assert told(known, torch.tensor([0.0, 1.0, 0.0, 1.0]), still) == [0]


def test_worths_that_are_not_known_say_nothing() -> None:
    members = all_coalitions(2)
    seen = torch.tensor([True, False, True, True])[None, :, None]
    worths = torch.tensor([0.0, 5.0, 0.0, 0.0])[None, :, None]
    still = torch.ones(1, 2, 1, dtype=torch.bool)
    assert not acting(still, members[None], worths, seen, torch.zeros(1, 1)).any()


@pytest.mark.parametrize("budget", [10, 16, 20, 24, 28, 30])
def test_a_player_that_acts_in_a_coalition_seen_is_left_open_in_the_evidence(budget: int) -> None:
    x = torch.ones(1, 5)
    evidence = measure_shapley(Game(lambda q: gate(q.round()), x), budget)
    coalitions = evidence.coalitions
    seen = {(): 0.0, (0, 1, 2, 3, 4): float(gate(x))}
    if coalitions is not None:
        for members, worth in zip(coalitions.members[0], coalitions.worths[0], strict=True):
            seen[tuple(members.nonzero().flatten().tolist())] = float(worth)
    for player in range(5):
        acts = any(
            tuple(sorted({*who, player})) in seen and seen[tuple(sorted({*who, player}))] != worth
            for who, worth in seen.items()
            if player not in who
        )
        effects, measured = evidence.effects[0, player], evidence.measured[0, player]
        assert bool(effects.any() or not measured.any()) or not acts
    assert not evidence.effects[0, 3].any() and (evidence.measured[0, 3].any() or budget < 24)
