"""Models trained on synthetic tables, with rows to explain and background rows: none of them is a held-out model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from sklearn.ensemble import HistGradientBoostingClassifier
from torch import Tensor, nn

from captum_meta._model import unmoved_random_state
from captum_meta.benchmark.nets import Recurrent, learn, perceptron, residual
from captum_meta.estimators import all_coalitions, shapley_values

_ROWS, _EXPLAINED, _STEPS = 3000, 8, 600


@dataclass(frozen=True)
class BackgroundProblem:
    """A model ``(N, M) -> (N,)``, rows ``(8, M)``, background rows ``(K, M)``, and the exact values ``(8, M)``."""

    model: Callable[[Tensor], Tensor]
    inputs: Tensor
    background: Tensor
    values: Tensor


def background_problems(seed: int = 0) -> dict[str, Callable[[], BackgroundProblem]]:
    """Problems by name, made when they are called."""
    return {
        "MLP, logit, M=8, K=50": lambda: _problem(_mlp, 8, 50, False, seed),
        "MLP, probability, M=11, K=100": lambda: _problem(_mlp, 11, 100, True, seed),
        "GRU, probability, M=9, K=100": lambda: _problem(lambda _: Recurrent(1, 2), 9, 100, True, seed),
        "residual net, logit, M=10, K=50": lambda: _problem(_residual, 10, 50, False, seed),
        "boosted trees, logit, M=8, K=50": lambda: _problem(None, 8, 50, False, seed),
        "boosted trees, logit, M=11, K=100": lambda: _problem(None, 11, 100, False, seed),
    }


def _problem(
    make: Callable[[int], nn.Module] | None, n_players: int, count: int, probability: bool, seed: int
) -> BackgroundProblem:
    with unmoved_random_state(torch.device("cpu")):
        torch.manual_seed(seed)
        inputs = torch.randn(_ROWS, n_players) @ (torch.randn(n_players, n_players) / 2 + torch.eye(n_players))
        inputs = inputs / inputs.std(0)
        score = _score(inputs)
        labels = (score > score.median()).long()
        model = _trees(inputs, labels) if make is None else _trained(make(n_players), inputs, labels, probability)
    rows, background = inputs[-_EXPLAINED:], inputs[:count]
    return BackgroundProblem(model, rows, background, _exact(model, rows, background))


def _score(x: Tensor) -> Tensor:
    """Waves along three directions, a product, a switch, and a line."""
    along = torch.tanh(2 * x @ torch.randn(x.shape[1], 3) / x.shape[1] ** 0.5).prod(1)
    line = (x @ torch.randn(x.shape[1], 1)).squeeze(1) / x.shape[1] ** 0.5
    return 3 * along + line + x[:, 0] * x[:, 1] + (x[:, 2] > 0) * x[:, 3] + torch.sin(2 * x[:, 4])


def _exact(model: Callable[[Tensor], Tensor], rows: Tensor, background: Tensor) -> Tensor:
    members = all_coalitions(rows.shape[1]).unsqueeze(1)
    worths = [model(torch.where(members, row, background).flatten(0, 1)).unflatten(0, (-1, len(background))) for row in rows]
    return shapley_values(torch.stack(worths).double().mean(-1))


def _trees(inputs: Tensor, labels: Tensor) -> Callable[[Tensor], Tensor]:
    trees = HistGradientBoostingClassifier(max_iter=60, random_state=0).fit(inputs.numpy(), labels.numpy())
    return lambda rows: torch.as_tensor(trees.decision_function(rows.numpy())).float()


def _trained(net: nn.Module, inputs: Tensor, labels: Tensor, probability: bool) -> Callable[[Tensor], Tensor]:
    learn(net, inputs, labels, _STEPS, batch=256, rate=3e-3)
    net.eval().requires_grad_(False)
    if probability:
        return lambda rows: net(rows).softmax(-1)[:, 1]
    return lambda rows: net(rows) @ torch.tensor([-1.0, 1.0])


def _mlp(n_players: int) -> nn.Module:
    return perceptron(n_players, 48, 48, 2, activation=nn.GELU)


def _residual(n_players: int, width: int = 48) -> nn.Module:
    first, last = nn.Linear(n_players, width), nn.Linear(width, 2)
    return nn.Sequential(first, *[residual(width, width, nn.ReLU) for _ in range(3)], last)
