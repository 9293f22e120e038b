"""Plans: what they measure, and which of them need the same of support rows."""

from dataclasses import replace

import pytest
import torch

from captum_meta.evidence import Game, PathPlan, ShapleyPlan, measure_bent_path, measure_shapley
from captum_meta.games import RememberedGame
from captum_meta.types import Reading

M = 5


class Counted(torch.nn.Module):
    rows = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.rows += len(x)
        return x.sin().prod(1) + x[:, 0]


@pytest.fixture
def model() -> Counted:
    torch.manual_seed(0)
    return Counted()


@pytest.mark.parametrize(("plan", "budget"), [(ShapleyPlan(7), 7), (ShapleyPlan(), None), (ShapleyPlan(3, True), 3 * M)])
def test_coalitions_are_a_row_s_or_a_player_s(model: Counted, plan: ShapleyPlan, budget: int | None) -> None:
    x = torch.randn(3, M)
    found, expected = plan.measure(Game(model, x)), measure_shapley(Game(model, x), budget)
    assert torch.equal(found.effects, expected.effects) and torch.equal(found.measured, expected.measured)


def test_gradients_are_at_the_row_s_own_nodes_or_at_captum_s(model: Counted) -> None:
    x = torch.randn(3, M)
    assert torch.equal(PathPlan(4).measure(Game(model, x)).points, measure_bent_path(Game(model, x), 4)[0].points)
    even = PathPlan(4, "riemann_middle").measure(Game(model, x)).points
    assert torch.allclose(even, torch.tensor([0.125, 0.375, 0.625, 0.875]).expand(3, -1))


def test_supports_are_measured_alike_for_all_that_covers_the_border() -> None:
    border = ShapleyPlan().of_support(M)
    assert {ShapleyPlan(n).of_support(M) for n in (2 * M, 99)} == {ShapleyPlan(2, True, seed=3).of_support(M)} == {border}
    assert ShapleyPlan(2 * M - 1).of_support(M) != border
    assert ShapleyPlan().of_support(257) == ShapleyPlan(0).of_support(257) != border
    assert PathPlan(3).of_support(M) == PathPlan(3) != PathPlan(3, "riemann_left")


def test_what_learners_of_the_model_read_is_measured_of_support_rows_alone(model: Counted) -> None:
    x, reading = torch.randn(3, M), Reading(evaluations=9, most_players=M)
    query = ShapleyPlan(0, reading=reading)
    evidence = query.measure(Game(model, x))
    assert evidence.elements is not None and evidence.coalitions is None
    support = query.of_support(M).measure(Game(model, x))
    assert support.coalitions is not None and support.coalitions.gradients is not None
    assert all(9 * M - 6 < 3 * count <= 9 * M for count in support.coalitions.measured.sum(-1).tolist())
    few = replace(query, reading=replace(reading, most_players=M - 1))
    assert few.of_support(M).measure(Game(model, x)).elements is None


def test_a_game_that_remembers_evaluates_nothing_twice_and_says_the_same(model: Counted) -> None:
    x = torch.randn(3, M)
    game = RememberedGame(Game(model, x))
    game.at(torch.ones(1))
    plans = [ShapleyPlan(4), ShapleyPlan(), ShapleyPlan(8), ShapleyPlan(20), PathPlan(3)]
    known = [plan.measure(game) for plan in plans]
    model.rows = 0
    again = [plan.measure(game) for plan in plans]
    assert model.rows == 0
    for plan, one, two in zip(plans, known, again, strict=True):
        plain = plan.measure(Game(model, x))
        for name in ("effects", "measured", "total", "curve"):
            assert torch.allclose(getattr(one, name), getattr(plain, name), atol=1e-6)
            assert torch.equal(getattr(one, name), getattr(two, name))
        if plain.coalitions is not None:
            assert one.coalitions is not None
            assert torch.allclose(one.coalitions.worths, plain.coalitions.worths, atol=1e-6)


def test_a_game_that_remembers_evaluates_what_is_new_alone(model: Counted) -> None:
    game = RememberedGame(Game(model, torch.randn(3, M)))
    members = torch.rand(3, 9, M) < 0.5
    game.at(torch.ones(1))
    game.values(members[:, :6])
    model.rows = 0
    wanted = torch.ones(3, 9, dtype=torch.bool)
    wanted[0, 8] = False
    values = game.values(members, wanted)
    distinct = [{tuple(c.tolist()) for c in row[6:]} - {tuple(c.tolist()) for c in row[:6]} for row in members]
    assert model.rows <= 9 and model.rows >= sum(map(len, distinct)) - 1
    assert values[0, 8] == 0
    expected = Game(model, game.inputs).values(members)
    assert torch.allclose(values[wanted], expected[wanted], atol=1e-6)
