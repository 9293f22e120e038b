"""Models of the held-out problems: small, honestly trained, of families that people use."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from captum_meta.benchmark.heldout_data import Table
from captum_meta.benchmark.heldout_text import SentenceSimilarity
from captum_meta.benchmark.nets import FeatureTransformer, Recurrent, perceptron, residual

Model = Callable[[Tensor], Tensor]


def _mlp(table: Table, depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    sizes = (table.x[0].numel(), *[width] * depth, table.n_outputs)
    return nn.Sequential(nn.Flatten(), perceptron(*sizes, activation=activation))


def _residual(table: Table, depth: int, width: int, activation: type[nn.Module]) -> nn.Module:
    blocks = [residual(width, width, activation) for _ in range(depth)]
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
