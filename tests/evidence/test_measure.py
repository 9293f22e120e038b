"""Evidence derived again with loops, one row, one coalition and one player at a time."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from captum_meta.evidence import (
    Game,
    joined,
    measure_shapley,
    measure_support,
)
from captum_meta.types import Evidence, Explanations


class TwoInputs(nn.Module):
    """Tokens (B, 3, 2), a table (B, 4), a factor a row, a power for all."""

    def forward(self, tokens: Tensor, table: Tensor, factor: Tensor, power: int) -> Tensor:
        value = torch.sin(tokens).prod(2).sum(1) * table.tanh().sum(1) * factor
        return torch.stack([value, value**power + table[:, 0]], dim=1)


def problem() -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor], Tensor, tuple[Tensor, int]]:
    generator = torch.Generator().manual_seed(0)
    x = (torch.randn(4, 3, 2, generator=generator).double(), torch.randn(4, 4, generator=generator).double())
    b = (torch.zeros(1, 3, 2).double(), torch.full((1, 4), 0.2).double())
    return x, b, torch.tensor([0, 1, 1, 0]), (torch.rand(4, generator=generator).double(), 2)


GROUPS = (torch.tensor([[[7, 7], [2, 2], [0, 0]]]), torch.tensor([[2, 11, 11, 5]]))
ORDER = [0, 2, 5, 7, 11]


def mixed(x: tuple[Tensor, Tensor], b: tuple[Tensor, Tensor], row: int, kept: set[int]) -> tuple[Tensor, ...]:
    parts = []
    for tensor, start, group in zip(x, b, GROUPS, strict=True):
        keep = torch.tensor([[g in kept for g in line] for line in group.reshape(-1, group.shape[-1]).tolist()])
        parts.append(torch.where(keep.reshape(group.shape), tensor[row : row + 1], start))
    return tuple(parts)


def test_evidence_of_groups_over_two_inputs() -> None:
    x, b, target, (factor, power) = problem()
    model = TwoInputs()
    evidence = measure_shapley(Game(model, x, b, target, (factor, power), GROUPS), n_samples=10)
    assert evidence.measured.all() and evidence.coalitions is None
    for row in range(4):

        def f(kept: set[int], row: int = row) -> float:
            tensors = mixed(x, b, row, kept)
            return model(*tensors, factor[row : row + 1], power)[0, target[row]].item()

        everyone = set(ORDER)
        assert evidence.total[row].item() == pytest.approx(f(everyone) - f(set()))
        for player, group in enumerate(ORDER):
            assert evidence.effects[row, player, 3].item() == pytest.approx(f(everyone) - f(everyone - {group}))
            assert evidence.effects[row, player, 4].item() == pytest.approx(f({group}) - f(set()))
        for channel, point in enumerate((1.0, 0.5, 0.0)):
            at = [(s + point * (t[row : row + 1] - s)).requires_grad_() for t, s in zip(x, b, strict=True)]
            value = model(*at, factor[row : row + 1], power)[0, target[row]]
            grads = torch.autograd.grad(value, at)
            assert evidence.curve[row, channel].item() == pytest.approx(value.item() - f(set()))
            for player, group in enumerate(ORDER):
                effect = sum(
                    (g * (t[row : row + 1] - s))[mask == group].sum()
                    for g, t, s, mask in zip(grads, x, b, GROUPS, strict=True)
                )
                assert evidence.effects[row, player, channel].item() == pytest.approx(float(effect))


def test_worths_of_coalitions_inside_the_border_in_small_chunks() -> None:
    x, b, target, extra = problem()
    model = TwoInputs()
    whole = measure_shapley(Game(model, x, b, target, extra, GROUPS), n_samples=20)
    chunked = measure_shapley(Game(model, x, b, target, extra, GROUPS, max_rows=3), n_samples=20)
    assert whole.coalitions is not None and chunked.coalitions is not None
    assert torch.allclose(whole.coalitions.worths, chunked.coalitions.worths)
    assert torch.allclose(whole.effects, chunked.effects)
    for row in range(4):
        for members, worth in zip(whole.coalitions.members[row], whole.coalitions.worths[row], strict=True):
            kept = {group for group, member in zip(ORDER, members.tolist(), strict=True) if member}
            values = [
                model(*mixed(x, b, row, some), extra[0][row : row + 1], extra[1])[0, target[row]] for some in (kept, set())
            ]
            assert torch.isclose(worth, values[0] - values[1])


def test_rows_with_players_of_their_own() -> None:
    x = torch.randn(2, 4)
    mask = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 1]])
    evidence = measure_shapley(Game(lambda x: x.square().sum(1), x, None, None, None, mask), n_samples=8)
    assert evidence.players.sum(1).tolist() == [4, 2]
    assert torch.allclose(evidence.effects[1, :2, 4], x[1].square().unflatten(0, (2, 2)).sum(1))
    assert not evidence.measured[1, 2:].any()


@pytest.mark.parametrize(
    "forward",
    [
        lambda x: x.sum(1),
        lambda x: x.sum(1, keepdim=True),
        partial(lambda x, dim: x.sum(dim), dim=1),
        torch.jit.script(nn.Sequential(nn.Linear(3, 1))),
        lambda x: x.float().sum(1),
    ],
    ids=["(B,)", "(B, 1)", "partial", "script", "function"],
)
def test_forms_of_forward_functions(forward: object) -> None:
    evidence = measure_shapley(Game(forward, torch.randn(2, 3)))  # type: ignore[arg-type]
    assert evidence.effects.shape == (2, 3, 5) and evidence.measured.all()


def test_outputs_behind_a_tuple_target() -> None:
    x = torch.randn(2, 3)
    evidence = measure_shapley(Game(lambda x: x.unsqueeze(2) * torch.arange(1.0, 5), x, None, (1, 3)))
    assert torch.allclose(evidence.total, 4 * x[:, 1])


def test_one_number_for_a_batch_is_one_game() -> None:
    x = torch.randn(3, 4)
    evidence = measure_shapley(Game(lambda x: x.square().sum(), x))
    assert evidence.effects.shape == (1, 4, 5)
    assert torch.allclose(evidence.effects[0, :, 4], x.square().sum(0), atol=1e-5)


def test_scikit_learn_behind_a_lambda() -> None:
    from sklearn.tree import DecisionTreeRegressor

    x = np.random.default_rng(0).normal(size=(50, 3))
    tree = DecisionTreeRegressor(max_depth=3).fit(x, x[:, 0] * x[:, 1])
    rows = torch.tensor(x[:4], dtype=torch.float32)
    evidence = measure_shapley(Game(lambda x: torch.as_tensor(tree.predict(x.numpy())), rows))
    assert evidence.measured[..., 3:].all() and not evidence.measured[..., :3].any()


def test_whole_numbers_have_no_gradient() -> None:
    table = torch.randn(10)
    evidence = measure_shapley(Game(lambda x: table[x].sum(1), torch.tensor([[1, 2], [3, 4]])))
    assert not evidence.measured[..., :3].any()
    assert torch.allclose(evidence.effects[0, :, 4], table[[1, 2]] - table[0])


def test_errors_of_the_model_are_not_swallowed() -> None:
    def broken(x: Tensor) -> Tensor:
        raise RuntimeError("size mismatch somewhere inside")

    with pytest.raises(RuntimeError, match="size mismatch"):
        measure_shapley(Game(broken, torch.randn(2, 3)))


def test_vanishing_gradients_are_unmeasured_row_by_row() -> None:
    def step(x: Tensor) -> Tensor:
        return torch.where(x[:, 0] > 0, (x[:, 1] > 0.5).float() + 0 * x.sum(1), x.sum(1))

    x = torch.tensor([[1.0, 1.0], [-1.0, 1.5]])
    evidence = measure_shapley(Game(step, x, torch.tensor([[0.5, 0.0], [-1.0, 0.0]])))
    assert evidence.measured[:, 0, 0].tolist() == [False, True]


@pytest.mark.parametrize("groups", [None, GROUPS])
def test_gradients_of_coalitions(groups: tuple[Tensor, Tensor] | None) -> None:
    x, b, target, (factor, power) = problem()
    game = Game(TwoInputs(), x, b, target, (factor, power), groups)
    members = torch.rand(4, 7, game.players.count, generator=torch.Generator().manual_seed(3)) < 0.5
    measured = game.coalition_gradients(members)
    assert measured is not None
    gradients, values = measured
    for row, coalition in product(range(4), range(7)):
        keep = game.players.of_elements(members[row : row + 1, coalition])
        parts = [torch.where(k, t[row : row + 1], s).requires_grad_() for k, t, s in zip(keep, x, b, strict=True)]
        value = TwoInputs()(*parts, factor[row : row + 1], power)[0, target[row]]
        expected = game.players.gather(torch.autograd.grad(value, parts))
        assert torch.allclose(values[row, coalition, 0], value)
        assert torch.allclose(gradients[row, coalition, :, :, 0], expected[0])


@pytest.mark.parametrize("max_rows", [None, 1, 2])
def test_gradients_do_not_depend_on_the_rows_that_are_differentiated_together(max_rows: int | None) -> None:
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0))
    masks = torch.tensor([[0, 1, 2, 3], [0, 0, 1, 2], [0, 0, 0, 1]])
    game = Game(lambda x: x.sin().sum(1), x, feature_mask=masks, max_rows=max_rows)
    measured = game.coalition_gradients(torch.ones(3, 5, 4, dtype=torch.bool))
    assert measured is not None
    gradients = x.cos()
    wanted = torch.zeros(3, 4, 3)
    for row, ids in enumerate(masks.tolist()):
        for player in set(ids):
            own = [gradients[row, i] for i in range(4) if ids[i] == player]
            wanted[row, player, : len(own)] = torch.stack(own)
    assert torch.allclose(measured[0].squeeze(-1), wanted.unsqueeze(1).expand(-1, 5, -1, -1))


class TestSupportRows:
    """Evaluations beside what a query has: a gradient counts as three."""

    @staticmethod
    def counted(model: Callable[..., Tensor], evaluations: int, *arguments: Any, **others: Any) -> tuple[Evidence, int]:
        calls = []

        def count(*arguments: Tensor) -> Tensor:
            calls.append(len(arguments[0]) * (3 if torch.is_grad_enabled() else 1))
            return model(*arguments)

        game = Game(count, *arguments, **others)
        game.at(torch.ones(1))
        calls.clear()
        before = measure_support(game, 0, 0)
        usual = sum(calls)
        calls.clear()
        evidence = measure_support(game, 0, evaluations)
        assert torch.equal(evidence.effects, before.effects) and before.coalitions is None
        return evidence, sum(calls) - usual

    def test_coalitions_come_with_gradients(self) -> None:
        generator = torch.Generator().manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 2))
        x, b = torch.randn(2, 4, 6, generator=generator)
        evidence, spent = self.counted(net, 24, x, b, 1, feature_mask=torch.tensor([[0, 0, 1, 1, 2, 3]]))
        coalitions, elements = evidence.coalitions, evidence.elements
        assert coalitions is not None and coalitions.gradients is not None and elements is not None
        assert spent == 4 * 24 and coalitions.worths.shape == (4, 8) and elements.shape == (4, 4, 2, 2)
        assert torch.allclose(coalitions.worths[:, -2], evidence.total) and (coalitions.worths[:, -1] == 0).all()
        assert torch.allclose(elements[:, 0].unbind(-1)[0], x[:, :2]) and (elements[:, 2:, 1] == 0).all()
        step = 1e-3 * torch.randn(4, 4, 2, generator=generator) * torch.tensor([[1, 1], [1, 1], [1, 0], [1, 0]])
        moved = torch.stack(
            [step[:, 0, 0], step[:, 0, 1], step[:, 1, 0], step[:, 1, 1], step[:, 2, 0], step[:, 3, 0]], dim=1
        )
        change = (net(x + moved) - net(x))[:, 1]
        assert torch.allclose((coalitions.gradients[:, -2] * step).sum((-2, -1)), change, atol=2e-6)

    @pytest.mark.filterwarnings("ignore:The model has no gradient")
    @pytest.mark.parametrize("kind", ["step", "large players"])
    def test_models_without_a_gradient_and_large_players_have_coalitions_alone(self, kind: str) -> None:
        x = torch.randn(3, 200, generator=torch.Generator().manual_seed(0))
        mask = torch.arange(4).repeat_interleave(50).unsqueeze(0) if kind == "step" else torch.arange(200).clamp(max=3)[None]

        def model(x: Tensor) -> Tensor:
            return (x[:, :100].sum(1) > 0) + x[:, 0].round() if kind == "step" else x.sum(1).sin()

        evidence, spent = self.counted(model, 64, x, feature_mask=mask)
        coalitions = evidence.coalitions
        assert coalitions is not None and coalitions.gradients is None
        assert spent <= 3 * 64 and coalitions.worths.shape == (3, 16)

    def test_rows_of_other_sizes_join(self) -> None:
        x = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
        masks = ([[0, 0, 0, 1, 1, 2]], [[0, 1, 2, 3, 4, 4]])
        parts = []
        for mask in masks:
            evidence = measure_support(Game(lambda x: x.sin().sum(1), x, feature_mask=torch.tensor(mask)), 0, 30)
            parts.append(Explanations(evidence, torch.zeros(evidence.players.shape)))
        together = joined(parts).evidence
        assert (
            together.coalitions is not None and together.coalitions.gradients is not None and together.elements is not None
        )
        assert together.elements.shape == (6, 5, 3, 2) and together.coalitions.gradients.shape[2:] == (5, 3)
        known = together.coalitions.measured.unsqueeze(-1)
        kept = torch.where(together.coalitions.members, 1.0, 0.0) * known
        sines = together.elements[..., 0].cos() * (together.elements[..., 0] != 0)
        first = together.coalitions.gradients
        seen = kept.bool().unsqueeze(-1) & (together.elements[..., 0] != 0).unsqueeze(1)
        assert torch.allclose(torch.where(seen, first, 0.0), torch.where(seen, sines.unsqueeze(1), 0.0), atol=1e-6)


def test_concatenation_and_padding() -> None:
    parts = [
        measure_shapley(Game(lambda x: x.sum(1), torch.randn(n, m)), budget) for n, m, budget in ((2, 3, 6), (1, 5, 20))
    ]
    one, two = (Explanations(part, torch.ones_like(part.total).unsqueeze(-1) * part.players) for part in parts)
    together = joined([one, two])
    assert together.evidence.players.sum(1).tolist() == [3, 3, 5]
    assert together.attributions.sum(1).tolist() == [3, 3, 5]
    assert torch.equal(together[2].evidence.effects, two.evidence.effects[0])
    coalitions = together.evidence.coalitions
    assert coalitions is not None and coalitions.measured.sum(-1).tolist() == [6, 6, 20]
    assert torch.equal(coalitions[2].worths, two.evidence.coalitions.worths[0])  # type: ignore[union-attr]
    bare = replace(one, evidence=replace(one.evidence, coalitions=None))
    assert joined([bare]).evidence.coalitions is None


@pytest.mark.gpu
def test_evidence_lies_where_the_model_lies() -> None:
    model, x = nn.Linear(3, 2).cuda(), torch.randn(2, 3, device="cuda")
    evidence = measure_shapley(Game(model, x, None, 1), n_samples=6)
    assert evidence.effects.is_cuda
    alone = measure_shapley(Game(model.cpu(), x.cpu(), None, 1), n_samples=6)
    assert torch.allclose(evidence.effects.cpu(), alone.effects, atol=1e-5)


def test_rounding_that_depends_on_the_place_in_the_batch_is_no_effect() -> None:
    def model(x: Tensor) -> Tensor:
        ulp = torch.finfo(x.dtype).eps * (torch.arange(len(x)) % 3 - 1)
        return (1 + x[:, 0] + x[:, 1] * x[:, 2]) * (1 + ulp)

    evidence = measure_shapley(Game(model, torch.rand(3, 4) + 0.5), 8)
    assert (evidence.effects[:, 3] == 0).all() and evidence.measured[:, 3, 3:].all()
    assert (evidence.effects[:, :3, 3:].abs().sum(-1) > 0.1).all()


def test_gradients_are_taken_of_as_many_rows_as_the_batch_has_unless_rows_are_small() -> None:
    sizes = []

    def model(x: Tensor) -> Tensor:
        sizes.append(len(x))
        return x.flatten(1).sum(1)

    for x, largest in ((torch.rand(2, 3, 128, 512), 2), (torch.rand(2, 3), 20)):
        sizes.clear()
        game = Game(model, x)
        game.at(torch.ones(1))
        sizes.clear()
        game.gradients(torch.linspace(0, 1, 10))
        assert max(sizes) == largest
    for limit in (1, 7):
        sizes.clear()
        Game(model, torch.rand(2, 3), max_rows=limit).gradients(torch.linspace(0, 1, 10))
        assert max(sizes) == limit
