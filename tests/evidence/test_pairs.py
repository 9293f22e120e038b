"""Which pairs of coalitions and background rows are evaluated."""

import torch

from captum_meta.evidence.pairs import plan_pairs

KEYS = torch.tensor([3, 8])


def test_no_pair_twice_and_all_rows_equally_often() -> None:
    for n_players, count, budget in ((4, 6, 60), (5, 4, 119), (3, 9, 54), (6, 7, 434), (4, 7, 50)):
        members, drawn, planned = plan_pairs(
            torch.ones(2, n_players, dtype=torch.bool), torch.tensor([budget, budget]), count, 0, KEYS
        )
        assert members.shape[1] == budget and bool(planned.all())
        codes = (members * 2 ** torch.arange(n_players)).sum(-1) * count + drawn
        assert all(len(row.unique()) == budget for row in codes)
        used = torch.stack([row.bincount(minlength=count) for row in drawn])
        assert int(used.max() - used.min()) <= 2
        even = budget // 2 * 2
        assert torch.equal(members[:, 0:even:2], ~members[:, 1:even:2])
        assert torch.equal(drawn[:, 0:even:2], drawn[:, 1:even:2])


def test_never_more_than_there_are_and_padding_for_rows_of_fewer_players() -> None:
    players = torch.tensor([[True, True, True, False], [True, True, True, True]])
    members, _, planned = plan_pairs(players, torch.tensor([1000, 1000]), 3, 0, KEYS)
    assert planned.sum(1).tolist() == [18, 42]
    assert not members[0, :, 3].any() and not members[~planned].any()
