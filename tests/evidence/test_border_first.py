"""Which rows are measured by coalitions of the border, and which by those that tell most."""

import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaKernelShap
from captum_meta.evidence import Game, measure_shapley

M = 16
WEIGHTS = torch.randn(M, 4, generator=torch.Generator().manual_seed(0)).double()
X = torch.randn(3, M, generator=torch.Generator().manual_seed(1)).double()


def bent(x: Tensor) -> Tensor:
    """Of one direction."""
    return torch.sigmoid(x @ WEIGHTS[:, 0])


def crooked(x: Tensor) -> Tensor:
    """The gradients at the three points have little in common."""
    return torch.sin(x * torch.arange(2, x.shape[-1] + 2)).sum(-1)


def rough(x: Tensor) -> Tensor:
    """A player enters by a step."""
    return bent(torch.where(torch.arange(x.shape[-1]) == 3, (x > 0).to(x), x))


def border(model: object, n_samples: int, border: bool = False, x: Tensor = X) -> list[int]:
    """How many coalitions of the border each row has."""
    coalitions = measure_shapley(Game(model, x, torch.zeros_like(x)), n_samples, border=border).coalitions
    if coalitions is None:
        return [n_samples] * len(x)
    sizes = coalitions.members.sum(-1)
    return (((sizes == 1) | (sizes == x.shape[1] - 1)) & coalitions.measured).sum(-1).tolist()


@pytest.mark.parametrize("n_samples", [2 * M, 3 * M, 4 * M])
def test_rows_of_few_directions_do_without(n_samples: int) -> None:
    assert max(border(bent, n_samples)) < 1.5 * M
    assert border(bent, n_samples, border=True) == [2 * M] * 3


@pytest.mark.parametrize("n_samples", [6 * M, 8 * M])
def test_with_more_coalitions_they_have_both(n_samples: int) -> None:
    few, many = (measure_shapley(Game(bent, X, torch.zeros_like(X)), n, border=False).coalitions for n in (2 * M, n_samples))
    assert few is not None and many is not None
    assert torch.equal(few.members, many.members[:, : 2 * M])
    assert border(bent, n_samples) == [2 * M] * 3
    first = many.members[:, ::2]
    assert all(len(row.unique(dim=0)) == len(row) for row in torch.where(first[..., :1], first, ~first))


@pytest.mark.parametrize(
    ("model", "n_samples", "n_players"),
    [
        (crooked, 2 * M, M),
        (rough, 2 * M, M),
        (bent, 2 * M - 2, M),
        (lambda x: bent(x @ torch.ones(12, M).double()), 24, 12),
    ],
)
def test_others_have_it_first(model: object, n_samples: int, n_players: int) -> None:
    assert border(model, n_samples, x=X[:, :n_players]) == [min(n_samples, 2 * n_players)] * 3


def test_each_row_has_its_own_way() -> None:
    def either(x: Tensor) -> Tensor:
        return torch.where(x[:, :1].sum(1) > 0, crooked(x), bent(x))

    x = X.clone()
    x[:, 0] = torch.tensor([-1.0, 1.0, -1.0])
    counts = border(either, 2 * M, x=x)
    assert counts[1] == 2 * M and max(counts[0], counts[2]) < M
    assert border(either, 2 * M, x=x[:1]) == counts[:1]


def test_a_saturated_model_is_explained_better_without_the_border() -> None:
    def certain(x: Tensor) -> Tensor:
        return torch.sigmoid(2 * x @ WEIGHTS[:, 0])

    right = MetaKernelShap(certain).attribute(X, n_samples=4096)
    attr = MetaKernelShap(certain, learner="zero-shot")
    errors = [(attr.attribute(X, n_samples=n) - right).square().sum() for n in (2 * M, 2 * M - 2)]
    assert errors[0] < 0.5 * errors[1]


def test_front_ends_that_compare_rows_keep_to_it() -> None:
    attr = MetaKernelShap(bent)
    assert not attr._plan(2 * M).border
    assert attr._plan(2 * M).of_support(M).border
    assert attr.adapt(X)._plan(2 * M).border
    assert not MetaKernelShap(bent, memory=64)._plan(2 * M).border
