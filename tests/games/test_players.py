import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from captum_meta.evidence import Players


def inputs() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 2, 4, generator=generator), torch.randn(3, 5, generator=generator)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 9), min_size=13, max_size=13), st.booleans())
def test_collect_sums_each_group_and_spread_hands_its_value_back(ids: list[int], per_row: bool) -> None:
    x = inputs()
    rows = 3 if per_row else 1
    flat = torch.stack([torch.tensor(ids).roll(row) for row in range(rows)])
    masks = (flat[:, :8].reshape(rows, 2, 4), flat[:, 8:])
    players = Players.of(x, masks)
    collected = players.collect(x)
    spread = players.of_elements(collected)
    joint = torch.cat([part.flatten(1) for part in x], dim=1)
    answer = torch.cat([part.flatten(1) for part in spread], dim=1)
    for row in range(3):
        own = flat[row if per_row else 0]
        known = sorted(set(own.tolist()))
        for position, group in enumerate(known):
            total = joint[row][own == group].sum()
            assert torch.isclose(collected[row, position], total, atol=1e-5)
            assert torch.allclose(answer[row][own == group], total, atol=1e-5)
        assert players.mask.expand(3, -1)[row].sum() == len(known)


@pytest.mark.parametrize("per_row", [False, True])
def test_gather_puts_the_elements_of_each_player_side_by_side(per_row: bool) -> None:
    x = inputs()
    ids = torch.tensor([4, 0, 0, 7, 4, 4, 9, 9, 0, 7, 4, 2, 2])
    flat = torch.stack([ids.roll(row) for row in range(3 if per_row else 1)])
    players = Players.of(x, (flat[:, :8].reshape(-1, 2, 4), flat[:, 8:]))
    gathered = players.gather(x)
    joint = torch.cat([part.flatten(1) for part in x], dim=1)
    assert players.apart and gathered.shape == (3, 5, 4)
    for row in range(3):
        own = flat[row if per_row else 0]
        for position, group in enumerate(sorted(set(own.tolist()))):
            elements = joint[row][own == group].tolist()
            assert gathered[row, position].tolist() == elements + [0.0] * (4 - len(elements))
    assert torch.equal(Players.of(x).gather(x), joint.unsqueeze(-1))


def test_gather_keeps_distances_between_players_of_many_elements() -> None:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(40, 2000, generator=generator)
    mask = torch.arange(2).repeat_interleave(1000).unsqueeze(0)
    players = Players.of((x,), (mask,))
    gathered = players.gather((x,))
    assert not players.apart and gathered.shape == (40, 2, 32)
    assert torch.allclose(players.gather((2 * x,)), 2 * gathered, atol=1e-3)
    near = x.index_fill(0, torch.arange(20), 0) + x.roll(20, 0)
    sizes = (x[:, :1000] - near[:, :1000]).square().sum(1) * 32
    found = (gathered[:, 0] - players.gather((near,))[:, 0]).square().sum(1)
    assert ((found / sizes).log().abs() < 1.1).all()


def test_without_a_mask_every_element_is_a_player() -> None:
    x = inputs()
    players = Players.of(x)
    assert players.count == 13
    assert all(torch.equal(a, b) for a, b in zip(players.of_elements(players.collect(x)), x, strict=True))


def test_masks_that_do_not_fit_are_refused() -> None:
    with pytest.raises(AssertionError, match="one mask for each input"):
        Players.of(inputs(), (torch.zeros(1, 2, 4, dtype=torch.long),))
    with pytest.raises(AssertionError, match="does not fit"):
        Players.of(inputs()[1:], (torch.zeros(1, 4, dtype=torch.long),))


def test_values_stand_in_the_columns_of_their_ids_as_captum_has_them() -> None:
    x, mask = torch.randn(2, 4), torch.tensor([[3, 3, 7, 5], [5, 1, 1, 1]])
    players = Players.of((x,), (mask,))
    values = torch.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 0.0]])
    columns = players.by_id(values)
    assert columns.tolist() == [[0, 0, 1, 0, 2, 0, 3], [4, 0, 0, 0, 5, 0, 0]]
    assert torch.equal(players.from_ids(columns), values) and torch.equal(players.from_ids(values), values)
    negative = Players.of((x,), (mask - 9,))
    assert torch.equal(negative.by_id(values), columns) and torch.equal(negative.from_ids(columns), values)


def test_players_of_all_rows_are_the_ids_of_any_row() -> None:
    x, mask = torch.randn(2, 4), torch.tensor([[3, 3, 7, 5], [5, 1, 1, 1]])
    players = Players.of((x,), (mask,)).of_all_rows()
    assert players.ids is not None and players.ids[0].tolist() == [1, 3, 5, 7] and players.mask.all()
    members = torch.tensor([[True, False, True, False]])
    assert players.of_elements(members)[0].tolist() == [[False, False, False, True], [True, True, True, True]]
