"""Networks in place of the explained model, against loops over their layers and against games measured on real models."""

import pytest
import torch
from torch import Tensor, nn

from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.evidence import Game, measure_shapley
from captum_meta.nn.surrogate import Committee, SurrogateGame, learn
from captum_meta.types import State

ROWS, PLAYERS = 5, 4


def random_net(seed: int, outputs: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(PLAYERS, 16), nn.Tanh(), nn.Linear(16, outputs)).double().requires_grad_(False)


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, ROWS, PLAYERS, generator=generator, dtype=torch.float64).unbind()


def test_members_of_a_committee_vote_on_each_row() -> None:
    generator = torch.Generator().manual_seed(0)

    def drawn(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    weights: State = {
        "enter": drawn(3, PLAYERS, 6),
        "enter bias": drawn(3, 1, 6),
        "inner": drawn(3, 6, 6),
        "inner bias": drawn(3, 1, 6),
        "leave": drawn(3, 6, 2),
    }
    votes, heads, unit = drawn(3, ROWS), torch.tensor([0, 1, 1, 0, 1]), torch.tensor(2.5).double()
    points = drawn(ROWS, 7, PLAYERS)
    found = Committee(weights, votes, heads, unit)(points)
    gelu = nn.functional.gelu
    for row in range(ROWS):
        for number in range(7):
            expected = 0.0
            for member in range(3):
                hidden = gelu(points[row, number] @ weights["enter"][member] + weights["enter bias"][member, 0])
                hidden = gelu(hidden @ weights["inner"][member] + weights["inner bias"][member, 0])
                expected += votes[member, row] * (hidden @ weights["leave"][member])[heads[row]] * unit
            assert torch.allclose(found[row, number], torch.as_tensor(expected))


def test_shapley_values_are_those_of_all_coalitions(rows: tuple[Tensor, Tensor]) -> None:
    net, (x, b) = random_net(2), rows
    game = SurrogateGame(lambda points: net(points).squeeze(-1), x, b)
    everything = all_coalitions(PLAYERS).expand(ROWS, -1, -1)
    assert torch.allclose(game.shapley_values(), shapley_values(game.worths(everything)), atol=1e-5)
    assert torch.allclose(game.shapley_values().sum(-1), (net(x) - net(b)).squeeze(-1))


@pytest.mark.parametrize("budget", [0, 2 * PLAYERS])
def test_what_is_left_is_what_would_be_measured_of_the_difference(rows: tuple[Tensor, Tensor], budget: int) -> None:
    net, surrogate, (x, b) = random_net(2), random_net(3), rows
    evidence = measure_shapley(Game(net, x, b), budget)
    left = SurrogateGame(lambda points: surrogate(points).squeeze(-1), x, b).taken_from(evidence)
    expected = measure_shapley(Game(lambda points: net(points) - surrogate(points), x, b), budget)
    for name in ("effects", "total", "curve"):
        assert torch.allclose(getattr(left, name), getattr(expected, name).double(), atol=1e-6), name
    assert torch.equal(left.measured, expected.measured)


class TestLearning:
    @staticmethod
    def lesson(rows: tuple[Tensor, Tensor], net: nn.Module) -> dict[str, Tensor]:
        x, b = rows
        members = all_coalitions(PLAYERS)
        points = torch.where(members, x.unsqueeze(1), b.unsqueeze(1))
        worths = (net(points) - net(b).unsqueeze(1)).squeeze(-1)
        known = ~torch.eye(2, ROWS, dtype=torch.bool).unsqueeze(-1).expand(-1, -1, len(members))
        heads, ranks = torch.zeros(ROWS, dtype=torch.long), torch.arange(PLAYERS)
        return {"points": points, "starts": b, "worths": worths, "known": known, "heads": heads, "ranks": ranks}

    def test_worths_of_the_rows_are_learned(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2))
        weights = learn(**lesson, n_heads=1)
        votes = torch.tensor([[0.0] * 5, [1.0] * 5]).double()
        committee = Committee(weights, votes, lesson["heads"], torch.ones(()).double())
        game = SurrogateGame(committee, *rows)
        found = game.worths(all_coalitions(PLAYERS).expand(ROWS, -1, -1))
        learned = lesson["known"][1]
        missed = (found - lesson["worths"])[learned].square().sum() / lesson["worths"][learned].square().sum()
        assert missed < 0.05

    def test_a_member_never_sees_the_rows_left_out_of_it(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2))
        weights = learn(**lesson, n_heads=1)
        changed = learn(**{**lesson, "worths": lesson["worths"].index_fill(0, torch.tensor([0]), 9.0)}, n_heads=1)
        assert torch.equal(weights["inner"][0], changed["inner"][0])
        assert not torch.equal(weights["inner"][1], changed["inner"][1])

    def test_outputs_do_not_mix_where_they_differ(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2))
        heads = torch.tensor([0, 1, 0, 1, 0])
        signed = torch.where(heads.bool().unsqueeze(-1), -lesson["worths"], lesson["worths"])
        known = torch.ones_like(lesson["known"])
        weights = learn(**{**lesson, "heads": heads, "worths": signed, "known": known}, n_heads=2)
        committee = Committee(weights, torch.full((2, ROWS), 0.5).double(), heads, torch.ones(()).double())
        found = SurrogateGame(committee, *rows).worths(all_coalitions(PLAYERS).expand(ROWS, -1, -1))
        assert (found - signed).square().sum() / signed.square().sum() < 0.1

    def test_players_and_rows_in_another_order_teach_the_same(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2))
        weights = learn(**lesson, n_heads=1)
        players, order = torch.tensor([2, 0, 3, 1]), torch.tensor([4, 2, 0, 1, 3])
        shuffled = {
            "points": lesson["points"][order][..., players],
            "starts": lesson["starts"][order][..., players],
            "worths": lesson["worths"][order],
            "known": lesson["known"][:, order],
            "heads": lesson["heads"][order],
            "ranks": lesson["ranks"][players],
        }
        other = learn(**shuffled, n_heads=1)
        assert torch.allclose(other["enter"], weights["enter"][:, players], atol=1e-6)
        assert torch.allclose(other["leave"], weights["leave"], atol=1e-6)

    def test_it_learns_in_inference_mode(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2))
        expected = learn(**lesson, n_heads=1)
        with torch.inference_mode():
            found = learn(**{name: value.clone() for name, value in lesson.items()}, n_heads=1)
        assert all(torch.equal(found[name], expected[name]) for name in expected)
