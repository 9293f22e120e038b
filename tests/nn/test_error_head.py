"""The network behind error estimates."""

import pytest
import torch

import captum_meta.nn.shapley
from captum_meta.attr import MetaKernelShap
from captum_meta.nn import ErrorHead
from captum_meta.nn.error_head import PLAYER_NUMBERS, ROW_NUMBERS, shipped_error_head


def numbers(n_players: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(5, n_players, PLAYER_NUMBERS, generator=generator), torch.randn(5, ROW_NUMBERS, generator=generator)


def test_padding_and_order_do_not_matter() -> None:
    torch.manual_seed(0)
    head, (players, rows) = ErrorHead(8), numbers(4)
    right = head(players, rows, torch.ones(5, 4, dtype=torch.bool))
    padded = torch.cat([players[:, [2, 0, 3, 1]], torch.full((5, 2, PLAYER_NUMBERS), 1e3)], dim=1)
    mask = torch.tensor([True] * 4 + [False] * 2).expand(5, 6)
    assert torch.allclose(head(padded, rows, mask), right, atol=1e-6)


def test_inputs_are_standardised() -> None:
    torch.manual_seed(0)
    head, (players, rows) = ErrorHead(8), numbers(4)
    mask = torch.ones(5, 4, dtype=torch.bool)
    head.standardise(players.flatten(0, 1), rows)
    before = head(players, rows, mask)
    head.standardise(3 * players.flatten(0, 1) + 1, 2 * rows - 1)
    assert torch.allclose(head(3 * players + 1, 2 * rows - 1, mask), before, atol=1e-5)


def test_the_margin_makes_the_shipped_estimates_bounds() -> None:
    head, (players, rows) = shipped_error_head(torch.device("cpu"), torch.float32), numbers(4)
    mask = torch.ones(5, 4, dtype=torch.bool)
    assert head.margin > 0
    assert torch.equal(head.log_bound(players, rows, mask), head(players, rows, mask) + head.margin)


def test_a_game_of_one_player_is_known_beyond_doubt() -> None:
    for dtype in (torch.float32, torch.int64):
        x = torch.tensor([[2, 3], [1, 4]], dtype=dtype)
        attr = MetaKernelShap(lambda x: x.float().prod(1), learner="zero-shot")
        one = torch.zeros(1, 2, dtype=torch.long)
        values, estimate = attr.attribute(x, feature_mask=one, n_samples=0, return_error_estimate=True)
        assert torch.allclose(values, x.float().prod(1, keepdim=True).expand(2, 2)) and (estimate == 0).all()


@pytest.mark.parametrize("n_samples", [0, 60])
def test_where_no_border_is_known_nothing_is_computed_for_an_estimate(
    n_samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A posterior of 1,024 pairs for each row took 4.8 GB, to tell nothing."""
    monkeypatch.setattr(captum_meta.nn.shapley, "numbers_of", lambda *_: pytest.fail("an estimate was made"))
    x = torch.randn(3, 40)
    _, bounds = MetaKernelShap(lambda x: x.tanh().prod(1), learner="zero-shot").attribute(
        x, n_samples=n_samples, return_error_estimate=True
    )
    assert bool(bounds.isnan().all())
