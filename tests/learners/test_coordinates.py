"""How near rows are to the support rows, row by row."""

import torch

from captum_meta.learners._coordinates import SupportCoordinates
from captum_meta.learners._correction import judge


def test_corrections_fade_with_the_distance_from_the_nearest_support_row() -> None:
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(5, 3, 8, generator=generator, dtype=torch.float64)
    asked = 3 * torch.randn(4, 2, 8, generator=generator, dtype=torch.float64)
    players = torch.ones(5, 3, dtype=torch.bool)
    players[1, 1:] = False
    known = torch.tensor([[True, True], [True, False], [False, True], [True, True]])

    def distance(left: torch.Tensor, right: torch.Tensor, both: torch.Tensor) -> float:
        return float((left - right).square().sum(-1)[both].mean()) if both.any() else torch.inf

    nearest = [min(distance(z[a], z[b], players[a] & players[b]) for b in range(5) if b != a) for a in range(5)]
    spacing = sum(nearest) / 5
    support, decay = SupportCoordinates.of(z, players), torch.tensor(0.2)
    found = support.nearness(asked, known, decay)
    for row in range(4):
        away = min(distance(asked[row], z[b, :2], known[row] & players[b, :2]) for b in range(5))
        expected = torch.exp(torch.tensor(-0.2 * max(0.0, away / (spacing + 1e-3) - 1)))
        assert torch.allclose(found[row], expected.double().reshape(1))
    assert (support.nearness(z, players, decay) == 1).all()
    alone = torch.tensor([max(0.0, d / (spacing + 1e-3) - 1) for d in nearest]).double()
    assert torch.allclose(support.isolation(), alone, atol=1e-6)
    for rate, other in ((0.3, 0.1), (0.1, 0.3)):  # the decay by which corrections are right is chosen
        right = torch.ones(5, 3, dtype=torch.float64) * (-rate * alone).exp().unsqueeze(-1)
        trust, applied = judge(torch.ones(1, 5, 3, dtype=torch.float64), right, 0.0, support=support)
        assert trust.decay == rate != other and torch.allclose(applied, right, atol=1e-6)


def test_rows_without_a_common_player_get_no_correction() -> None:
    z = torch.zeros(2, 2, 8)
    support = SupportCoordinates.of(z, torch.tensor([[True, False], [True, False]]))
    assert support.nearness(z[:1], torch.tensor([[False, True]]), torch.tensor(0.2)) == 0
