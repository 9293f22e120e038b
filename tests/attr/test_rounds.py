"""Coalitions beyond eight for each player are chosen for each row, by what it has told so far."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaKernelShap, MetaShapleyValueSampling
from captum_meta.evidence import ShapleyPlan
from captum_meta.functional import attribution_error
from captum_meta.games import Game
from tests.attr.conftest import probe


class Watched(torch.nn.Module):
    """Counts rows, and keeps which players each has."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function, self.seen = function, []  # type: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        self.seen.append(x.detach() != 0)
        return self.function(x)

    @property
    def coalitions(self) -> set[tuple[bool, ...]]:
        return set(map(tuple, torch.cat(self.seen).tolist()))


def few_interact(x: Tensor) -> Tensor:
    """Three of all players act on each other, in all orders."""
    return (2 * x[:, 1] + x[:, 4] - x[:, 7]).cos() * (x[:, 4] * x[:, 7]).exp() + x.sum(1)


def exact(model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    return MetaKernelShap(model).attribute(x, n_samples=2 ** x.shape[1] - 2)


@pytest.mark.parametrize("n_samples", [81, 100, 161, 300])
def test_costs_are_those_of_the_budget_and_no_coalition_is_seen_twice(n_samples: int) -> None:
    model, x = Watched(few_interact), torch.rand(1, 10) + 0.5
    MetaKernelShap(model).attribute(x, n_samples=n_samples)
    even = n_samples - n_samples % 2
    assert sum(map(len, model.seen)) == even + 3 + probe(1)
    assert len(model.coalitions) == even + 2
    assert {tuple(not member for member in members) for members in model.coalitions} == model.coalitions


def test_what_interacts_is_looked_at() -> None:
    """Half of the error of the coalitions that all rows have, and more."""
    torch.manual_seed(1)
    x = torch.rand(8, 12) + 0.5
    truth = exact(few_interact, x)
    attr = MetaKernelShap(few_interact)
    for n_samples in (144, 192):
        chosen = attr.attribute(x, n_samples=n_samples)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("captum_meta.attr._rounds._MOST_PLAYERS", 0)
            alike = attr.attribute(x, n_samples=n_samples)
        assert attribution_error(chosen, truth) < attribution_error(alike, truth) / 2


def test_rows_choose_for_themselves() -> None:
    x = torch.rand(3, 11) + 0.5
    attr = MetaKernelShap(few_interact)
    together = attr.attribute(x, n_samples=120)
    apart = torch.cat([attr.attribute(row, n_samples=120) for row in x.split(1)])
    assert torch.allclose(together, apart, rtol=0, atol=1e-5 * float(together.abs().max()))
    assert torch.equal(together, attr.attribute(x, n_samples=120))


def test_outputs_of_a_row_share_their_coalitions() -> None:
    def three(x: Tensor) -> Tensor:
        return torch.stack([few_interact(x), (x[:, 0] * x[:, 2] * x[:, 3]).sin(), x.prod(1)], dim=1)

    model, x = Watched(three), torch.rand(1, 9) + 0.5
    found = MetaKernelShap(model).attribute(x, outputs="all", n_samples=100)
    assert len(model.coalitions) == 102
    for output in range(3):
        truth = MetaKernelShap(three).attribute(x, target=output, n_samples=510)
        assert attribution_error(found[:, output], truth) < 1e-2


def test_rows_of_different_sizes_have_the_coalitions_of_their_own() -> None:
    x = torch.rand(2, 10) + 0.5
    mask = torch.tensor([list(range(10)), [0, 1, 2, 3, 4, 5, 6, 6, 6, 6]])
    attr = MetaShapleyValueSampling(few_interact)
    both = attr.attribute(x, feature_mask=mask, n_samples=12)
    for row in range(2):
        alone = attr.attribute(x[row : row + 1], feature_mask=mask[row : row + 1], n_samples=12)
        assert torch.allclose(both[row : row + 1], alone, atol=1e-5)


def test_rows_of_many_players_have_the_coalitions_of_all() -> None:
    model, x = Watched(few_interact), torch.rand(1, 17) + 0.5
    MetaKernelShap(model).attribute(x, n_samples=170)
    planned = ShapleyPlan(170, border=False).begin(Game(few_interact, x), 256)
    assert {tuple(members) for members in planned.members[0, :170].tolist()} <= model.coalitions
