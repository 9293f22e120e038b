"""Networks are tested, where rows have the border alone, by coalitions that no explanation has read."""

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaKernelShap, _memory
from captum_meta.attr._network_shares import SHARES
from captum_meta.attr._unread_pairs import UnreadTest, judges_itself, unread_pairs
from captum_meta.evidence import Game, measure_shapley
from captum_meta.games import SurrogateGame
from captum_meta.nn import cross_fitted
from captum_meta.types import Evidence
from tests.attr.wavy import PLAYERS, Wavy, rows


@pytest.mark.parametrize("target", [0, None])
def test_pairs_lie_beyond_the_border_and_cost_a_fiftieth(target: int | None) -> None:
    game = Game(Wavy(), rows(100), None, target)
    evidence = measure_shapley(game, 2 * PLAYERS)
    found = unread_pairs(game, evidence, torch.ones_like(evidence.total, dtype=torch.bool))
    assert found is not None and not judges_itself(evidence)
    n_outputs = 1 if target == 0 else 2
    assert found.members.shape == (5 * n_outputs, 4, PLAYERS) and 5 * 8 <= 0.02 * 100 * (9 + 2 * PLAYERS) < 6 * 8
    sizes = found.members.sum(-1)
    assert bool(((sizes > 1) & (sizes < PLAYERS - 1)).all())
    for row, members, differences in zip(found.rows.tolist(), found.members, found.differences, strict=True):
        x = rows(100)[row // n_outputs]
        right = Wavy()(torch.where(members, x, 0.0)) - Wavy()(torch.where(members, 0.0, x))
        torch.testing.assert_close(differences, right[:, row % n_outputs])


def test_none_are_evaluated_of_few_rows_and_of_rows_without_the_border() -> None:
    for count, n_samples in ((19, 12), (60, 10), (60, 24)):
        model = Wavy()
        game = Game(model, rows(count), None, 0)
        evidence, before = measure_shapley(game, n_samples), model.rows
        assert unread_pairs(game, evidence, torch.ones(count, dtype=torch.bool)) is None and model.rows == before


def test_a_share_is_as_good_as_its_gain_less_a_standard_error() -> None:
    test = UnreadTest()
    assert test.losses().tolist() == [0.0, *[torch.inf] * 4]
    roots = torch.rand(7, len(SHARES), dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    test.add(1, roots[:3].square())
    test.add(2, torch.full((1, len(SHARES)), torch.nan, dtype=torch.float64))
    test.add(3, roots[3:].square())
    right = [float((gain := column - roots[:, 0]).mean() + gain.std() / 7**0.5) for column in roots.T]
    assert test.losses().tolist() == pytest.approx(right) and test.fits == 3


def test_coalitions_beyond_the_border_cost_nothing_more() -> None:
    alone, learning = Wavy(), Wavy()
    for attr in (MetaKernelShap(alone), MetaKernelShap(learning, memory=1000)):
        attr.attribute(rows(40), target=0, n_samples=4 * PLAYERS)
    assert learning.rows == alone.rows


@pytest.mark.parametrize(("size", "outputs", "share"), [(0.0, 1, 1.0), (0.0, 2, 1.0), (1.0, 1, 0.0), (1.0, 2, 0.0)])
def test_networks_that_are_right_at_all_that_was_read_and_nowhere_else_are_refused(
    size: float, outputs: int, share: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The model's own game, and between the border another, of which neither the border nor the gradients tell."""

    def network(known: _memory._Known, evidence: Evidence, start: Tensor, keys: Tensor) -> SurrogateGame:
        assert evidence.elements is not None
        inputs, model = evidence.elements[..., 0, 0], Wavy()
        heads = torch.zeros_like(keys) if evidence.targets is None else evidence.targets

        def function(inside: Tensor) -> Tensor:
            found = model((inputs.unsqueeze(1) * inside).flatten(0, 1)).unflatten(0, inside.shape[:2])
            count = inside.sum(-1)
            between = count * (count - 1) * (PLAYERS - 1 - count) * (PLAYERS - count)
            chosen = heads[:, None, None].expand(-1, inside.shape[1], 1)
            return found.gather(2, chosen).squeeze(2) + size * between * (inside[..., 0] - inside[..., 1]) ** 3

        return SurrogateGame(function, inputs)

    monkeypatch.setattr(cross_fitted, "_MOST", 30)
    monkeypatch.setattr(_memory._Known, "_allowed", lambda known, evidence: float(known.learned > 0))
    monkeypatch.setattr(_memory._Known, "_game", network)
    attr = MetaKernelShap(Wavy(), memory=1000)
    selected: dict[str, Any] = {"target": 0} if outputs == 1 else {"outputs": "all"}
    found = attr.attribute(rows(60), **selected)
    assert attr._memory is not None and attr._memory.share == share
    if share == 0:
        torch.testing.assert_close(found, MetaKernelShap(Wavy()).attribute(rows(60), **selected), atol=0, rtol=0)
