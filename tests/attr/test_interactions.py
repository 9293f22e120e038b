"""Interactions of the Shapley front ends: exact where all is known, what holds for any budget, and what mistakes say."""

from typing import Any

import pytest
import torch
from torch import Tensor

from captum_meta._model import Counted
from captum_meta.attr import MetaKernelShap, MetaShapleyValueSampling
from captum_meta.estimators import INDICES, all_coalitions, interactions
from tests.attr.conftest import CountingModel, probe, untrained

FRONT_ENDS = (MetaKernelShap, MetaShapleyValueSampling)
M, EVERY = 6, 2**6 - 2


def make(model: Any, front_end: Any = MetaKernelShap) -> Any:
    return front_end(model, learner=untrained("shapley"))


def exact(model: Any, x: Tensor, background: Tensor, index: str) -> Tensor:
    """From all coalitions and all background rows, ``(B, M, M)``."""
    members = all_coalitions(x.shape[1]).unsqueeze(1)
    with torch.no_grad():
        games = [model(torch.where(members, row, background).flatten(0, 1)) for row in x]
    worths = torch.stack([game.unflatten(0, (-1, len(background))).mean(1) for game in games])
    return interactions(worths.double(), index)


@pytest.fixture
def net() -> torch.nn.Module:
    return torch.nn.Sequential(torch.nn.Linear(M, 12), torch.nn.Tanh(), torch.nn.Linear(12, 1), torch.nn.Flatten(0)).eval()


@pytest.mark.parametrize("index", INDICES)
class TestExact:
    def test_from_all_coalitions(self, net: torch.nn.Module, index: str) -> None:
        x, baseline = torch.randn(2, M), torch.randn(1, M)
        found = make(net).interactions(x, baseline, n_samples=EVERY, index=index)
        assert torch.allclose(found.double(), exact(net, x, baseline, index), atol=1e-5)

    def test_from_all_pairs_with_background_rows(self, net: torch.nn.Module, index: str) -> None:
        x, background = torch.randn(2, M), torch.randn(3, M)
        found = make(net).interactions(x, n_samples=3 * EVERY, index=index, background=background)
        assert torch.allclose(found.double(), exact(net, x, background, index), atol=1e-5)

    @pytest.mark.parametrize("rows", [1, 4])
    def test_nearly_from_a_part_of_them(self, net: torch.nn.Module, index: str, rows: int) -> None:
        x, background = torch.randn(3, M), torch.randn(rows, M)
        given = {"baselines": background} if rows == 1 else {"background": background}
        found, truth = make(net).interactions(x, **given, n_samples=44, index=index), exact(net, x, background, index)
        assert float((found - truth).square().sum() / truth.square().sum()) < 0.03


@pytest.mark.parametrize(
    "given", [{}, {"background": torch.tensor([[0.0] * M, [0.5] * M, [-1.0] * M])}], ids=["zero", "rows"]
)
class TestEveryBudget:
    @pytest.mark.parametrize("index", ["k-SII", "STII", "FSII"])
    def test_sums_and_symmetry(self, net: torch.nn.Module, given: dict[str, Tensor], index: str) -> None:
        x = torch.randn(2, M)
        found = make(net).interactions(x, n_samples=30, index=index, **given)
        start = net(given.get("background", torch.zeros(1, M))).mean()
        total = found.diagonal(dim1=1, dim2=2).sum(1) + found.triu(1).sum((1, 2))
        assert torch.allclose(total, net(x) - start, atol=1e-5)
        assert torch.allclose(found, found.mT)

    def test_shapley_values_are_those_of_attribute(self, net: torch.nn.Module, given: dict[str, Tensor]) -> None:
        """Where coalitions are not chosen for pairs: with background rows, and where all are known."""
        x, attr, n_samples = torch.randn(2, M), make(net), 30 if given else EVERY
        found = attr.interactions(x, n_samples=n_samples, index="SII", **given).diagonal(dim1=1, dim2=2)
        assert torch.allclose(found, attr.attribute(x, n_samples=n_samples, **given), atol=1e-5)

    def test_players_without_effect_get_nothing(self, net: torch.nn.Module, given: dict[str, Tensor]) -> None:
        x = torch.randn(2, M + 1)
        given = {name: torch.cat([rows, rows[:, :1]], dim=1) for name, rows in given.items()}
        found = make(lambda x: net(x[:, [0, 1, 2, 4, 5, 6]])).interactions(x, n_samples=100, **given)
        assert (found[:, 3] == 0).all() and (found[:, :, 3] == 0).all()
        assert (found.abs().sum(2)[:, :3] > 0).all()

    def test_a_row_does_not_depend_on_its_batch(self, net: torch.nn.Module, given: dict[str, Tensor]) -> None:
        x, attr = torch.randn(4, M), make(net)
        together, alone = attr.interactions(x, n_samples=30, **given), attr.interactions(x[2:3], n_samples=30, **given)
        assert torch.allclose(together[2], alone[0], atol=1e-5)

    def test_units_do_not_matter(self, net: torch.nn.Module, given: dict[str, Tensor]) -> None:
        x = torch.randn(2, M)
        found = make(net).interactions(x, n_samples=30, **given)
        large = make(lambda x: 1e20 * net(x)).interactions(x, n_samples=30, **given)
        assert torch.allclose(large / 1e20, found, atol=1e-4)


def test_probabilities_are_told_by_their_logits() -> None:
    """Twice a probability is the same game, but nothing says so."""
    x, baseline = torch.randn(8, M), torch.zeros(1, M)

    def probability(x: Tensor) -> Tensor:
        return torch.sigmoid(3 * (x[:, 0] * x[:, 1] + x[:, 2] + x[:, 3] - x[:, 4] * x[:, 5]))

    truth = exact(probability, x, baseline, "STII")
    found = make(probability).interactions(x, baseline, n_samples=30, index="STII")
    twice = make(lambda x: 2 * probability(x)).interactions(x, baseline, n_samples=30, index="STII") / 2
    ratios = (found - truth).square().sum((1, 2)) / (twice - truth).square().sum((1, 2))
    assert ratios.log().mean() < -0.7


def test_rows_of_probabilities_do_not_depend_on_others(net: torch.nn.Module) -> None:
    attr = make(lambda x: torch.sigmoid(3 * net(x)) * (1 + (x[:, 0] > 9)))
    x = torch.randn(3, M)
    x[1, 0] = 10.0
    together = attr.interactions(x, n_samples=30)
    assert all(
        torch.allclose(together[row], attr.interactions(x[row : row + 1], n_samples=30)[0], atol=1e-5) for row in range(3)
    )


def test_groups_of_a_mask_stand_at_their_ids(net: torch.nn.Module) -> None:
    x, mask = torch.randn(2, M), torch.tensor([[0, 0, 2, 3, 3, 3]])
    found = make(net).interactions(x, feature_mask=mask, n_samples=6)
    grouped = exact(
        lambda z: net(torch.where(z[:, mask[0].clamp(max=3)] > 0, x[:1], 0.0)), torch.ones(1, 4), torch.zeros(1, 4), "k-SII"
    )
    assert found.shape == (2, 4, 4)
    assert torch.allclose(found[0].double(), grouped[0], atol=1e-5)


def test_rows_may_have_masks_of_their_own(net: torch.nn.Module) -> None:
    x, masks = torch.randn(2, M), torch.tensor([[0, 0, 1, 1, 2, 2], [0, 1, 2, 3, 4, 5]])
    found = make(net).interactions(x, feature_mask=masks, n_samples=62)
    for row in range(2):
        own = make(net).interactions(x[row : row + 1], feature_mask=masks[row : row + 1], n_samples=62)[0]
        assert torch.allclose(found[row][: len(own), : len(own)], own, atol=1e-5)


@pytest.mark.parametrize(("front_end", "n_samples"), [(MetaKernelShap, 36), (MetaShapleyValueSampling, 6)])
def test_evaluations_are_those_asked_for(front_end: Any, n_samples: int) -> None:
    model = Counted(CountingModel(M).eval())
    make(model, front_end).interactions(torch.randn(1, M), target=1, n_samples=n_samples)
    assert model.evaluations == 36 + 9 + probe(1)


def test_coalitions_that_tell_of_a_rows_own_pairs_are_evaluated(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside those of one player and of all but one, in two rounds: as many pairs as there are so far, then the rest."""
    chosen: list[Tensor] = []

    def last_ones(rates: Tensor, amounts: Tensor, signs: Tensor, n_seen: int, count: int) -> Tensor:
        assert n_seen == 10 + sum(len(part) for part in chosen)
        chosen.append(signs[0, -count:] > 0)
        return torch.arange(signs.shape[1] - count, signs.shape[1]).unsqueeze(0)

    def model(x: Tensor) -> Tensor:
        seen.update(map(tuple, (x != 0).tolist()))
        return x.sum(1).sin()

    seen: set[tuple[bool, ...]] = set()
    monkeypatch.setattr("captum_meta.attr._interaction_rounds.telling_sums", last_ones)
    make(model).interactions(torch.rand(1, 9) + 1, n_samples=54)
    assert [len(part) for part in chosen] == [9, 9]
    border = torch.cat([torch.eye(9).bool(), torch.ones(1, 9).bool()])
    expected = torch.cat([border, *chosen])
    assert seen == set(map(tuple, torch.cat([expected, ~expected]).tolist()))


def test_more_than_the_process_reads_fills_a_table(monkeypatch: pytest.MonkeyPatch, net: torch.nn.Module) -> None:
    monkeypatch.setattr("captum_meta.attr._interactions.MAX_POSTERIOR", 30)
    x, baseline = torch.randn(1, M), torch.randn(1, M)
    truth = exact(net, x, baseline, "FSII")
    few, more = (
        (make(net).interactions(x, baseline, n_samples=count, index="FSII") - truth).square().sum() for count in (30, 60)
    )
    assert more < few / 4


@pytest.mark.usefixtures("unchecked")
def test_mistakes_are_named(net: torch.nn.Module) -> None:
    x, attr = torch.randn(2, M), make(net)
    with pytest.raises(ValueError, match="'k-SII', 'SII'"):
        attr.interactions(x, index="SHAP")
    with pytest.raises(ValueError, match="gradients alone tell no interactions"):
        attr.interactions(x, n_samples=0)
    with pytest.raises(AssertionError, match="baselines and background"):
        attr.interactions(x, 0, background=torch.zeros(3, M))
    with pytest.raises(AssertionError, match="pass target="):
        make(CountingModel(M)).interactions(x)
    with pytest.raises(AssertionError, match="pass target="):
        make(CountingModel(M)).interactions(x, n_samples=20)
    with pytest.raises(ValueError, match="257 players"):
        make(lambda x: x.sum(1)).interactions(torch.randn(1, 257))
    with pytest.warns(UserWarning, match="no more than those of one player"):
        attr.interactions(x, n_samples=2 * M)
