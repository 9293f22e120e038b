"""Models on synthetic tables, to explain many rows of; none is a held-out problem."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Generator, Tensor, nn

from captum_meta._model import unmoved_random_state
from captum_meta.benchmark.nets import FeatureTransformer, learn, perceptron, residual
from captum_meta.estimators import all_coalitions, shapley_values

_TRAINED, _STEPS, _CLASSES, _WIDTH = 2000, 800, 3, 48


@dataclass(frozen=True)
class ExplainedTable:
    """A model ``(N, M) -> (N, 3)``, rows ``(N, M)`` that it has not seen, and the class of each that it finds."""

    model: Callable[[Tensor], Tensor]
    inputs: Tensor
    target: Tensor

    def exact(self, count: int) -> Tensor:
        """Shapley values of the first rows, ``(count, M)``."""
        return exact_values(self.model, self.inputs[:count], self.target[:count])


def exact_values(model: Callable[[Tensor], Tensor], inputs: Tensor, target: Tensor) -> Tensor:
    """Shapley values of rows ``(N, M)`` against 0, from all coalitions, each of the output ``target`` ``(N,)``."""
    members = all_coalitions(inputs.shape[1])
    values = [model(torch.where(members, row, 0.0))[:, output] for row, output in zip(inputs, target, strict=True)]
    return shapley_values(torch.stack(values).double()).float()


def table_models(rows: int) -> dict[str, Callable[[], ExplainedTable]]:
    """Tables by the name of their model, made when they are called."""
    return {
        "MLP, probability, M=12": lambda: _table(lambda m: perceptron(m, 64, 64, _CLASSES), 12, True, rows),
        "feature transformer, probability, M=13": lambda: _table(
            lambda m: FeatureTransformer(m, _CLASSES, 2), 13, True, rows
        ),
        "residual net, logit, M=12": lambda: _table(_residual, 12, False, rows),
    }


def _table(make: Callable[[int], nn.Module], n_features: int, probability: bool, rows: int, seed: int = 0) -> ExplainedTable:
    with unmoved_random_state(torch.device("cpu")):
        torch.manual_seed(seed)
        inputs, labels = _data(n_features, _TRAINED + rows, Generator().manual_seed(seed))
        net = make(n_features)
        learn(net, inputs[:_TRAINED], labels, _STEPS, batch=128, rate=3e-3)
    model = (nn.Sequential(net, nn.Softmax(1)) if probability else net).eval().requires_grad_(False)
    return ExplainedTable(model, inputs[_TRAINED:], model(inputs[_TRAINED:]).argmax(1))


def _data(n_features: int, count: int, generator: Generator) -> tuple[Tensor, Tensor]:
    """Correlated rows, classed by lines, products of two and of three waves along random directions."""
    mixing = torch.eye(n_features) + torch.randn(n_features, n_features, generator=generator) / (2 * n_features**0.5)
    inputs = torch.randn(count, n_features, generator=generator) @ mixing
    inputs = inputs / inputs.std(0)
    directions = torch.randn(_CLASSES, 3, n_features, generator=generator) / n_features**0.5
    along = torch.einsum("nd,cpd->ncp", inputs, directions)
    return inputs, (along[..., 0] + 4 * torch.tanh(2 * along).prod(-1) + along[..., 1] * along[..., 2]).argmax(1)


def _residual(n_features: int) -> nn.Module:
    blocks = [residual(_WIDTH, _WIDTH, nn.GELU) for _ in range(3)]
    return nn.Sequential(nn.Linear(n_features, _WIDTH), *blocks, nn.LayerNorm(_WIDTH), nn.Linear(_WIDTH, _CLASSES))
