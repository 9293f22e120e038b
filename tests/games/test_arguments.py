"""Baselines beside inputs of whole numbers: none is rounded in silence."""

from typing import Any

import pytest
import torch
from captum.attr import Attribution
from torch import Tensor

from tests.attr.front_ends import ADAPTED, PEERS, asked, make


def model(x: Tensor) -> Tensor:
    return x.float() @ torch.tensor([1.0, 2.0, 3.0])


@pytest.mark.parametrize("method", ADAPTED)
@pytest.mark.parametrize("baselines", [0.5, torch.tensor([[0.5, 1.5, 0.25]]), torch.tensor([[0.0, torch.nan, 1.0]])])
def test_baselines_between_whole_numbers(method: type[Attribution], baselines: Any) -> None:
    x = torch.tensor([[1, 2, 3]])
    values = make(PEERS[method], model).attribute(**asked(PEERS[method], x, baselines=baselines))
    expected = (x - baselines) * torch.tensor([1.0, 2.0, 3.0])
    if expected.isfinite().all():
        assert torch.allclose(values.float(), expected, atol=1e-5)
    else:
        assert values.isnan().any()


@pytest.mark.parametrize("method", ADAPTED[:2])
@pytest.mark.parametrize("baselines", [1, 1.0, torch.tensor([[1.0, 0.0, 2.0]]), torch.tensor([[1, 0, 2]])])
def test_whole_numbers_stay_what_they_are(method: type[Attribution], baselines: Any) -> None:
    table = torch.tensor([5.0, -1.0, 2.0, 7.0])
    values = make(PEERS[method], lambda x: table[x].sum(1)).attribute(torch.tensor([[1, 2, 3]]), baselines)
    start = baselines.long() if isinstance(baselines, Tensor) else torch.full((1, 3), int(baselines))
    assert torch.allclose(values.float(), table[torch.tensor([[1, 2, 3]])] - table[start], atol=1e-5)
