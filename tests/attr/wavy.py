"""A model of rows that interact in three, and its rows."""

import torch
from torch import Tensor, nn

PLAYERS = 6


class Wavy(nn.Module):
    """Two outputs that interact in three; the last player does nothing."""

    def __init__(self) -> None:
        super().__init__()
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        inner = torch.tanh(2 * x[:, 0] * x[:, 1] * x[:, 2]) + torch.sin(2 * x[:, 3] + x[:, 0]) * x[:, 4]
        return torch.stack([inner, -2 * inner], dim=1)


def rows(count: int, seed: int = 0) -> Tensor:
    return (8 * torch.randn(count, PLAYERS, generator=torch.Generator().manual_seed(seed))).round() / 8
