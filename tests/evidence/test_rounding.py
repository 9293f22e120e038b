"""What counts as rounding of the model and what as an effect, where outputs are large."""

import pytest
import torch
from torch import Tensor

from captum_meta.attr import MetaKernelShap, MetaShapleyValueSampling
from captum_meta.evidence import Game, measure_shapley
from tests.attr.conftest import untrained

EFFECTS = torch.tensor([3.0, -1.0, 0.25, 2.0, 0.0])


def steps(offset: float) -> Game:
    """Five players without gradients whose effects are small beside the output."""
    effects = EFFECTS.double()
    return Game(
        lambda x: offset + (x > 0).double() @ effects, torch.ones(2, 5, dtype=torch.float64), torch.zeros(2, 5).double()
    )


@pytest.mark.filterwarnings("ignore:The explained model has no gradient")
@pytest.mark.parametrize("digits", [3, 6, 9, 11])
def test_effects_far_above_rounding_are_read(digits: int) -> None:
    """Rounding of 1e11 in float64 is 1e-5, and the smallest effect 0.25."""
    border = measure_shapley(steps(10.0**digits)).effects[..., 3:]
    assert torch.allclose(border, EFFECTS.double().unsqueeze(-1).expand_as(border), atol=1e-3)


@pytest.mark.filterwarnings("ignore:The explained model has no gradient")
@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaShapleyValueSampling])
def test_small_players_of_large_outputs_are_explained(front_end: type[MetaKernelShap]) -> None:
    """Effects of some hundred units in the last place of the output are effects."""

    def model(x: Tensor) -> Tensor:
        return 1000.0 + (x > 0).float() @ (0.01 * EFFECTS)

    attr = front_end(model, learner=untrained("shapley"))
    found = attr.attribute(torch.ones(2, 5), torch.zeros(2, 5))
    assert torch.allclose(found, 0.01 * EFFECTS.expand(2, -1), atol=3e-4)
    assert (found[:, 4] == 0).all()
