"""Networks in place of the explained model, against loops over their layers and against games measured on real models."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.evidence import Game, measure_shapley
from captum_meta.games import SurrogateGame
from captum_meta.nn.distillation import gradient_weight, learn, one_cycle
from captum_meta.nn.lesson import Lesson
from captum_meta.nn.surrogate import Committee, Networks

ROWS, PLAYERS, ELEMENTS = 5, 4, 2


def random_net(seed: int, outputs: int = 1) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(PLAYERS, 16), nn.Tanh(), nn.Linear(16, outputs)).double().requires_grad_(False)


@pytest.fixture
def rows() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return torch.randn(2, ROWS, PLAYERS, generator=generator, dtype=torch.float64).unbind()


def at(rows: tuple[Tensor, Tensor], memberships: Tensor) -> Tensor:
    x, b = rows
    return b.unsqueeze(1) + memberships * (x - b).unsqueeze(1)


def game_of(net: nn.Module, rows: tuple[Tensor, Tensor]) -> SurrogateGame:
    return SurrogateGame(lambda memberships: net(at(rows, memberships)).squeeze(-1), rows[0])


def activation(x: Tensor) -> Tensor:
    return x / (1 + torch.exp(-1.702 * x))


class TestCommittee:
    @pytest.fixture
    def drawn(self) -> tuple[Networks, Tensor, Tensor, Tensor]:
        """Three members' weights, elements of rows and baselines, and memberships."""
        generator = torch.Generator().manual_seed(0)
        shapes = {
            "enter": (3, PLAYERS, ELEMENTS, 6),
            "enter_bias": (3, 1, 6),
            "inner": (3, 6, 6),
            "inner_bias": (3, 1, 6),
            "leave": (3, 6, 2),
        }
        weights = Networks(**{name: torch.randn(shape, generator=generator).double() for name, shape in shapes.items()})
        x, b = torch.randn(2, ROWS, PLAYERS, ELEMENTS, generator=generator).double().unbind()
        return weights, x, b, torch.rand(ROWS, 7, PLAYERS, generator=generator).double()

    @staticmethod
    def value(weights: Networks, member: int, head: int, point: Tensor) -> Tensor:
        hidden = weights.enter_bias[member, 0]
        for player in range(PLAYERS):
            for element in range(ELEMENTS):
                hidden = hidden + point[player, element] * weights.enter[member, player, element]
        hidden = activation(activation(hidden) @ weights.inner[member] + weights.inner_bias[member, 0])
        return hidden @ weights.leave[member][:, head]

    def test_members_vote_on_each_row(self, drawn: tuple[Networks, Tensor, Tensor, Tensor]) -> None:
        weights, x, b, memberships = drawn
        votes, heads = torch.randn(3, ROWS).double(), torch.tensor([0, 1, 1, 0, 1])
        found = Committee(weights, votes, heads, torch.tensor(2.5).double()).game(x, b).function(memberships)
        for row in range(ROWS):
            for number in range(7):
                point = b[row] + memberships[row, number].unsqueeze(-1) * (x - b)[row]
                values = [self.value(weights, member, int(heads[row]), point) for member in range(3)]
                assert torch.allclose(found[row, number], 2.5 * (torch.stack(values) * votes[:, row]).sum())

    def test_its_gradients_are_those_of_its_values(self, drawn: tuple[Networks, Tensor, Tensor, Tensor]) -> None:
        weights, x, b, memberships = drawn
        votes, heads = torch.randn(3, ROWS).double(), torch.tensor([0, 1, 1, 0, 1])
        game = Committee(weights, votes, heads, torch.tensor(2.5).double()).game(x, b)
        assert game.derivative is not None
        gradients, values = game.derivative(memberships)
        memberships = memberships.clone().requires_grad_()
        expected = game.function(memberships)
        assert torch.allclose(values, expected)
        assert torch.allclose(gradients, torch.autograd.grad(expected.sum(), memberships)[0])


def test_shapley_values_are_those_of_all_coalitions(rows: tuple[Tensor, Tensor]) -> None:
    net, (x, b) = random_net(2), rows
    game = game_of(net, rows)
    everything = all_coalitions(PLAYERS).expand(ROWS, -1, -1)
    assert torch.allclose(game.shapley_values(), shapley_values(game.worths(everything)), atol=1e-5)
    assert torch.allclose(game.shapley_values().sum(-1), (net(x) - net(b)).squeeze(-1))


def test_shapley_values_of_more_players_are_close_to_those_of_all_coalitions() -> None:
    n_players = 11
    torch.manual_seed(4)
    net = nn.Sequential(nn.Linear(n_players, 16), nn.Tanh(), nn.Linear(16, 1)).double().requires_grad_(False)
    x = torch.randn(ROWS, n_players).double()
    game = SurrogateGame(lambda memberships: net(memberships * x.unsqueeze(1)).squeeze(-1), x)
    right = shapley_values(game.worths(all_coalitions(n_players).expand(ROWS, -1, -1)))
    assert ((game.shapley_values() - right).square().sum() / right.square().sum()) < 1e-4


@pytest.mark.parametrize("budget", [0, 2 * PLAYERS])
def test_what_is_left_is_what_would_be_measured_of_the_difference(rows: tuple[Tensor, Tensor], budget: int) -> None:
    net, surrogate, (x, b) = random_net(2), random_net(3), rows
    evidence = measure_shapley(Game(net, x, b), budget)
    left = game_of(surrogate, rows).taken_from(evidence)
    expected = measure_shapley(Game(lambda points: net(points) - surrogate(points), x, b), budget)
    for name in ("effects", "total", "curve"):
        assert torch.allclose(getattr(left, name), getattr(expected, name).double(), atol=1e-6), name
    assert torch.equal(left.measured, expected.measured)


class TestLearning:
    def test_rates_and_momenta_are_those_of_one_cycle(self) -> None:
        schedule = one_cycle(0.04, 150, 0.2)
        optimizer = torch.optim.AdamW([torch.zeros(1, requires_grad=True)], 0.04)
        cycle = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.04, 150, pct_start=0.2)
        for rate, momentum in schedule:
            group = optimizer.param_groups[0]
            assert (rate, momentum) == pytest.approx((group["lr"], group["betas"][0]), rel=1e-9)
            optimizer.step()
            cycle.step()

    @staticmethod
    def lesson(rows: tuple[Tensor, Tensor], net: Callable[[Tensor], Tensor], with_gradients: bool = False) -> Lesson:
        x, b = rows
        half = all_coalitions(PLAYERS)[: 2 ** (PLAYERS - 1)]
        members = torch.stack([half, ~half], dim=1).flatten(0, 1).expand(ROWS, -1, -1)
        points = at(rows, members.double()).requires_grad_()
        values = net(points)
        (gradients,) = torch.autograd.grad(values.sum(), points)
        return Lesson(
            members=members,
            inputs=x.unsqueeze(-1),
            baselines=b.unsqueeze(-1),
            worths=(values.detach() - net(b).unsqueeze(1)).squeeze(-1),
            known=~torch.eye(2, ROWS, dtype=torch.bool).unsqueeze(-1).expand(-1, -1, members.shape[1]),
            heads=torch.zeros(ROWS, dtype=torch.long),
            ranks=torch.arange(PLAYERS),
            gradients=gradients.unsqueeze(-1) if with_gradients else None,
        )

    @staticmethod
    def game(weights: Networks, lesson: Lesson, votes: Tensor) -> SurrogateGame:
        unit = torch.ones(()).double()
        return Committee(weights, votes.double(), lesson.heads, unit).game(lesson.inputs, lesson.baselines)

    @pytest.mark.parametrize("with_gradients", [False, True])
    def test_worths_of_the_rows_are_learned(self, rows: tuple[Tensor, Tensor], with_gradients: bool) -> None:
        lesson = self.lesson(rows, random_net(2), with_gradients)
        game = self.game(learn(lesson, n_heads=1), lesson, torch.tensor([[0.0] * 5, [1.0] * 5]))
        learned = lesson.known[1]
        missed = (game.worths(lesson.members) - lesson.worths)[learned].square().sum()
        assert missed < 0.05 * lesson.worths[learned].square().sum()

    def test_gradients_tell_of_rows_that_were_not_seen(self, rows: tuple[Tensor, Tensor]) -> None:
        net, others = random_net(2), torch.randn(2, 40, PLAYERS, generator=torch.Generator().manual_seed(7)).double()
        misses = []
        for with_gradients in (False, True):
            lesson = self.lesson(rows, net, with_gradients)
            weights = learn(replace(lesson, known=torch.ones_like(lesson.known)), n_heads=1)
            votes, heads = torch.full((2, 40), 0.5).double(), torch.zeros(40, dtype=torch.long)
            committee = Committee(weights, votes, heads, torch.ones(()).double())
            game = committee.game(others[0].unsqueeze(-1), others[1].unsqueeze(-1))
            everyone = torch.ones(40, 1, PLAYERS, dtype=torch.bool)
            wanted = (net(others[0]) - net(others[1])).squeeze(-1)
            misses.append((game.worths(everyone).squeeze(-1) - wanted).square().sum() / wanted.square().sum())
        assert misses[1] < 0.5 * misses[0]

    def test_gradients_count_as_far_as_they_tell_the_differences_between_coalitions(
        self, rows: tuple[Tensor, Tensor]
    ) -> None:
        x, b = rows
        weights = []
        for net in (nn.Linear(PLAYERS, 1).double(), lambda x: x.mul(12).sin().sum(-1, keepdim=True)):
            lesson = self.lesson(rows, net, with_gradients=True)
            assert lesson.gradients is not None
            missed = total = 0.0
            for row in range(ROWS):
                for first in range(0, 2**PLAYERS, 2):
                    points = [torch.where(lesson.members[row, i], x[row], b[row]) for i in (first, first + 1)]
                    change = float(net(points[1]) - net(points[0]))
                    mean = (lesson.gradients[row, first] + lesson.gradients[row, first + 1]).squeeze(-1) / 2
                    missed += (change - float(mean @ (points[1] - points[0]))) ** 2
                    total += change**2
            found = gradient_weight(replace(lesson, known=torch.ones_like(lesson.known)))
            assert found is not None and found[0] == found[1]
            weights.append(float(found[0]))
            assert weights[-1] == pytest.approx(4 / max(1, missed / total) ** 3)
        assert weights[0] == pytest.approx(4) and weights[1] < 0.4
        assert gradient_weight(self.lesson(rows, random_net(2))) is None

    @pytest.mark.parametrize("with_gradients", [False, True])
    def test_a_member_never_sees_the_rows_left_out_of_it(self, rows: tuple[Tensor, Tensor], with_gradients: bool) -> None:
        lesson = self.lesson(rows, random_net(2), with_gradients)
        first = torch.tensor([0])
        strange = replace(
            lesson,
            worths=lesson.worths.index_fill(0, first, 9.0),
            gradients=None if lesson.gradients is None else lesson.gradients.index_fill(0, first, 9.0),
        )
        weights, changed = learn(lesson, n_heads=1), learn(strange, n_heads=1)
        assert torch.equal(weights.inner[0], changed.inner[0])
        assert not torch.equal(weights.inner[1], changed.inner[1])

    def test_outputs_do_not_mix_where_they_differ(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2))
        heads = torch.tensor([0, 1, 0, 1, 0])
        signed = torch.where(heads.bool().unsqueeze(-1), -lesson.worths, lesson.worths)
        lesson = replace(lesson, heads=heads, worths=signed, known=torch.ones_like(lesson.known))
        game = self.game(learn(lesson, n_heads=2), lesson, torch.full((2, ROWS), 0.5))
        assert (game.worths(lesson.members) - signed).square().sum() / signed.square().sum() < 0.1

    def test_players_and_rows_in_another_order_teach_the_same(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2), with_gradients=True)
        weights = learn(lesson, n_heads=1)
        players, order = torch.tensor([2, 0, 3, 1]), torch.tensor([4, 2, 0, 1, 3])
        assert lesson.gradients is not None
        shuffled = Lesson(
            members=lesson.members[order][..., players],
            inputs=lesson.inputs[order][:, players],
            baselines=lesson.baselines[order][:, players],
            worths=lesson.worths[order],
            known=lesson.known[:, order],
            heads=lesson.heads[order],
            ranks=lesson.ranks[players],
            gradients=lesson.gradients[order][:, :, players],
        )
        other = learn(shuffled, n_heads=1)
        assert torch.allclose(other.enter, weights.enter[:, players], atol=1e-6)
        assert torch.allclose(other.leave, weights.leave, atol=1e-6)

    def test_it_learns_in_inference_mode(self, rows: tuple[Tensor, Tensor]) -> None:
        lesson = self.lesson(rows, random_net(2))
        expected = learn(lesson, n_heads=1)
        with torch.inference_mode():
            found = learn(lesson.map(torch.clone), n_heads=1)
        assert all(torch.equal(*pair) for pair in zip(vars(found).values(), vars(expected).values(), strict=True))
