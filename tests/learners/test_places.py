"""How near rows are to the support rows, row by row."""

import torch

from captum_meta.learners._places import DECAYS, faded, isolation, nearness, places


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
    state = {**places(z, players), "decay": torch.tensor(0.2)}
    found = nearness(asked, known, state)
    for row in range(4):
        away = min(distance(asked[row], z[b, :2], known[row] & players[b, :2]) for b in range(5))
        expected = torch.exp(torch.tensor(-0.2 * max(0.0, away / (spacing + 1e-3) - 1)))
        assert torch.allclose(found[row], expected.double().reshape(1))
    assert (nearness(z, players, state) == 1).all()
    alone = torch.tensor([max(0.0, d / (spacing + 1e-3) - 1) for d in nearest]).double()
    assert torch.allclose(isolation(state), alone, atol=1e-6)
    both = faded(torch.ones(1, 5, 3, dtype=torch.float64), state)
    assert torch.allclose(both[..., 0], torch.stack([(-decay * alone).exp() for decay in DECAYS]), atol=1e-6)


def test_rows_without_a_common_player_get_no_correction() -> None:
    z = torch.zeros(2, 2, 8)
    state = {**places(z, torch.tensor([[True, False], [True, False]])), "decay": torch.tensor(0.2)}
    assert nearness(z[:1], torch.tensor([[False, True]]), state) == 0
