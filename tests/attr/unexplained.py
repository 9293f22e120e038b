"""Models whose gradients are not those of what they give, and rows of them."""

import torch
from torch import nn

X = torch.rand(4, 6, generator=torch.Generator().manual_seed(0)) + 0.5
BACKGROUND = torch.rand(4, 6, generator=torch.Generator().manual_seed(1)) + 0.2
WEIGHTS = torch.tensor([1.0, -2.0, 3.0, 0.5, -1.0, 2.0])


class Behind(nn.Module):
    """A function behind a layer that gives its input on."""

    def __init__(self, function):
        super().__init__()
        self.layer = nn.Identity()
        self.function = function

    def forward(self, x):
        return self.function(self.layer(x))


def straight_through(x):
    hidden = x @ torch.eye(6)[:, :3] * WEIGHTS[:3]
    return (hidden + (hidden.sign() - hidden).detach()).sum(1)


def detached(x):
    return x @ WEIGHTS + 3 * x.detach().sum(1)


def beside_a_plain_output(x):
    plain = x @ WEIGHTS.to(x)
    return torch.stack([plain + 3 * x.detach().sum(1), plain], dim=1)
