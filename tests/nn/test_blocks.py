"""Pooling blocks and the functions in them, against plain ones."""

import pytest
import torch

from captum_meta.nn.blocks import PoolingBlock, asinh


@pytest.mark.parametrize("n_players", [1, 2, 3, 4, 7])
def test_a_pooling_block_is_attention_by_learned_queries_and_an_mlp(n_players: int) -> None:
    torch.manual_seed(n_players)
    block, hidden = PoolingBlock(8, heads=4).double(), torch.randn(2, n_players, 8).double()
    normed = block.norm(hidden)
    weights, values = block.scores(normed).softmax(1), block.values(normed)
    pooled = torch.cat([(weights[..., h, None] * values[..., 2 * h : 2 * h + 2]).sum(1) for h in range(4)], dim=1)
    both = torch.cat([normed, pooled.unsqueeze(1).expand(-1, n_players, -1)], dim=2)
    assert torch.allclose(block(hidden), hidden + block.mix(both), atol=1e-12)


@pytest.mark.parametrize("n_players", [3, 6])
def test_who_is_masked_does_not_enter_a_pooling_block(n_players: int) -> None:
    torch.manual_seed(n_players)
    block, hidden = PoolingBlock(8).double(), torch.randn(2, n_players, 8).double()
    mask = torch.arange(n_players) < n_players - 1
    assert torch.allclose(block(hidden, mask)[:, :-1], block(hidden[:, :-1]), atol=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_asinh_is_exact_at_any_size(dtype: torch.dtype) -> None:
    values = torch.cat([torch.zeros(1, dtype=dtype), torch.logspace(-30, 30, 500, dtype=dtype)])
    values = torch.cat([values, -values])
    assert torch.allclose(asinh(values), values.asinh(), rtol=4 * torch.finfo(dtype).eps, atol=0)
