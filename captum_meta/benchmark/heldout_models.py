"""Models of the held-out problems: small, honestly trained, of families that people use."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import torch
from torch import Tensor, nn

from captum_meta.benchmark.heldout_data import Table
from captum_meta.benchmark.heldout_text import SentenceSimilarity

Model = Callable[[Tensor], Tensor]


class Residual(nn.Module):
    """``x + f(x)``."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, x: Tensor) -> Tensor:
        return x + self.inner(x)


class FeatureTransformer(nn.Module):
    """Every feature a token; one or two encoder layers; mean over tokens."""

    def __init__(self, n_features: int, n_outputs: int, depth: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.randn(n_features, 16))
        self.shift = nn.Parameter(0.1 * torch.randn(n_features, 16))
        layer = nn.TransformerEncoderLayer(16, 2, 32, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
        self.encoder = nn.TransformerEncoder(layer, depth, enable_nested_tensor=False)
        self.out = nn.Linear(16, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.encoder(x.unsqueeze(-1) * self.scale + self.shift).mean(1))


class Recurrent(nn.Module):
    """A GRU over the lines of an image, or over the features of a table."""

    def __init__(self, width: int, n_outputs: int) -> None:
        super().__init__()
        self.width = width
        self.gru = nn.GRU(width, 24, batch_first=True)
        self.out = nn.Linear(24, n_outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.gru(x.reshape(len(x), -1, self.width))[0][:, -1])


def _mlp(table: Table, depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    sizes = [table.x[0].numel()] + [width] * depth
    layers: list[nn.Module] = [nn.Flatten()]
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), activation()]
    return nn.Sequential(*layers, nn.Linear(width, table.n_outputs))


def _residual(table: Table, depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    def block() -> nn.Module:
        return Residual(nn.Sequential(nn.LayerNorm(width), nn.Linear(width, width), activation(), nn.Linear(width, width)))

    blocks = [block() for _ in range(depth)]
    enter = nn.Linear(table.x[0].numel(), width)
    return nn.Sequential(nn.Flatten(), enter, *blocks, nn.LayerNorm(width), nn.Linear(width, table.n_outputs))


def _convolutional(table: Table, depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1),
        activation(),
        nn.Conv2d(8, 12, 3, stride=2, padding=1),
        activation(),
        nn.Flatten(),
        nn.Linear(12 * (table.x.shape[-1] // 2) ** 2, table.n_outputs),
    )


def _recurrent(table: Table, depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    return Recurrent(8 if table.x.dim() > 2 else 1, table.n_outputs)


def _transformer(table: Table, depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    return FeatureTransformer(table.x.shape[1], table.n_outputs, min(depth, 2))


_NETWORKS: dict[str, Callable[[Table, int, int, type[nn.Module]], nn.Module]] = {
    "mlp": _mlp,
    "residual": _residual,
    "transformer": _transformer,
    "cnn": _convolutional,
    "rnn": _recurrent,
}


def trained(architecture: str, table: Table, seed: int, rows: slice) -> Model:
    """A model of ``architecture`` trained on ``rows`` of the table; depth, width and activation vary with the seed."""
    if architecture == "trees":
        return _trees(table, seed, rows)
    if architecture == "minilm":
        return SentenceSimilarity()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        depth, width = 1 + seed % 3, (16, 32, 64)[seed // 3 % 3]
        activation = (nn.ReLU, nn.GELU, nn.Tanh)[seed // 9 % 3]
        network = _NETWORKS[architecture](table, depth, width, activation)
        _fit(network, table.x[rows], table.y[rows])
    return network.eval().requires_grad_(False)


def _fit(network: nn.Module, x: Tensor, y: Tensor, steps: int = 200) -> None:
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3, weight_decay=1e-3)
    loss = nn.functional.cross_entropy if y.dim() == 1 else nn.functional.mse_loss
    for _ in range(steps):
        batch = torch.randint(len(x), (128,))
        optimizer.zero_grad()
        loss(network(x[batch]), y[batch]).backward()
        optimizer.step()


def _trees(table: Table, seed: int, rows: slice) -> Model:
    """Gradient-boosted trees behind a function: no gradient."""
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor

    x, y = table.x[rows].flatten(1).numpy(), table.y[rows].numpy()
    if table.n_outputs == 1:
        regressor = HistGradientBoostingRegressor(max_iter=60, random_state=seed).fit(x, y[:, 0])
        return lambda batch: torch.as_tensor(regressor.predict(batch.flatten(1).numpy())).float().unsqueeze(1)
    classifier = HistGradientBoostingClassifier(max_iter=60, random_state=seed).fit(x, y)

    def logits(batch: Tensor) -> Tensor:
        return torch.as_tensor(classifier.predict_proba(batch.flatten(1).numpy())).clamp(1e-9, 1).log().float()

    return logits
