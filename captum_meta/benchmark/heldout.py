"""The held-out problems: fixed by name and seed before any training, and used by all comparisons.

A name says everything: data, architecture, output, baseline. Its checksum is the seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from zlib import crc32

import torch
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.benchmark.heldout_data import DATA, Table
from captum_meta.benchmark.heldout_models import Model, trained
from captum_meta.estimators import all_coalitions, gauss_legendre, shapley_values
from captum_meta.evidence import Game

_QUERIES, _SUPPORT = 12, 64
_EXACT_PLAYERS = 16
_PERMUTATION_PAIRS = 3000
_CHUNK = 2**17

_CLASSES = ("breast-cancer", "wine", "adult")
_NUMBERS = ("diabetes", "bike", "california")


def held_out_names() -> list[str]:
    """All problems, in a fixed order.

    >>> len(held_out_names())
    69
    """
    names = []
    models: tuple[str, ...]
    for data in _CLASSES:
        models = ("mlp", "residual") if data == "breast-cancer" else ("mlp", "residual", "transformer", "trees")
        names += [f"{data}/{m}/{out}/{base}" for m in models for out in ("logit", "probability") for base in _BASELINES]
    for data in _NUMBERS:
        models = ("mlp", "residual", "transformer", "trees") if data != "bike" else ("mlp", "residual", "rnn")
        names += [f"{data}/{m}/value/{base}" for m in models for base in ("zero", "row")]
    names += [f"digits-patches/{m}/{out}/zero" for m in ("cnn", "mlp") for out in ("logit", "probability")]
    names += [f"digits-rows/rnn/{out}/{base}" for out in ("logit", "probability") for base in _BASELINES][:-1]
    return names


_BASELINES = ("zero", "row")


def quick_names() -> list[str]:
    """Every fifth problem: all families in a few minutes."""
    return held_out_names()[::5]


@dataclass(frozen=True)
class HeldOutProblem:
    """A trained model with rows to explain, and rows of its training data to adapt on.

    Attributes:
        name: data, architecture, output and baseline.
        model: the explained model, ``(B, *features) -> (B, K)``.
        inputs, baselines, target: of the rows to explain, ``(12, *features)`` and ``(12,)``.
        support_inputs, support_baselines, support_target: of the rows to adapt on, ``(64, *features)`` and ``(64,)``.
        feature_mask: players, as in Captum; None where each feature is its own.
    """

    name: str
    model: Model
    inputs: Tensor
    baselines: Tensor
    target: Tensor
    support_inputs: Tensor
    support_baselines: Tensor
    support_target: Tensor
    feature_mask: Tensor | None

    @property
    def family(self) -> str:
        """The architecture."""
        return self.name.split("/")[1]

    @property
    def n_players(self) -> int:
        """M."""
        return int(self.game().players.count)

    def game(self) -> Game:
        """The rows to explain."""
        return Game(self.model, self.inputs, self.baselines, self.target, None, self.feature_mask)


@lru_cache(maxsize=16)
def _table(data: str) -> Table:
    return DATA[data]()


@lru_cache(maxsize=128)
def load_held_out(name: str) -> HeldOutProblem:
    """Train the model of a problem, the same at every call.

    Raises:
        ValueError: if there is no problem of that name.
    """
    if name not in held_out_names():
        raise ValueError(f"There is no held-out problem {name!r}: pass one of held_out_names().")
    data, architecture, output, baseline = name.split("/")
    table = _table(data)
    n_train = int(0.7 * len(table.x))
    network = trained(architecture, table, crc32(name.encode()) % 1000, slice(0, n_train))
    probability = output == "probability"
    model = Probability(network) if probability else network
    queries, support = slice(n_train, n_train + _QUERIES), slice(0, _SUPPORT)

    def explained(rows: slice, starts: slice) -> tuple[Tensor, Tensor, Tensor]:
        x = table.x[rows]
        with torch.no_grad():
            target = model(x).argmax(1)
        return x, (table.x[starts] if baseline == "row" else torch.zeros_like(x)), target

    return HeldOutProblem(
        name,
        model,
        *explained(queries, slice(2 * _SUPPORT, 2 * _SUPPORT + _QUERIES)),
        *explained(support, slice(_SUPPORT, 2 * _SUPPORT)),
        table.feature_mask,
    )


class Probability(torch.nn.Module):
    """Softmax of a model's logits."""

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).softmax(1)


def reference(problem: HeldOutProblem, kind: str, folder: Path | None = None) -> Tensor:
    """What is right: exact Shapley values, or Integrated Gradients of 2,000 points; ``(12, M)``.

    Shapley values of more than 16 players are means over 3,000 antithetic pairs of permutations, unbiased.
    """
    path = folder and folder / f"{problem.name.replace('/', '_')}-{kind}.pt"
    if path is not None and path.is_file():
        return torch.load(path, weights_only=True)
    with torch.no_grad():
        values = _shapley(problem.game()) if kind == "shapley" else _integrated_gradients(problem.game())
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(values, path)
    return values


def _shapley(game: Game) -> Tensor:
    n_players = game.players.count
    if n_players > _EXACT_PLAYERS:
        return _permutations(game)
    everything = all_coalitions(n_players)
    rows = [game.take(torch.tensor([row])) for row in range(game.n_examples)]
    game.max_rows = _CHUNK
    worths = [row.worths(everything.unsqueeze(0)).squeeze(-1).double() for row in rows]
    return shapley_values(torch.cat(worths)).float()


def _permutations(game: Game) -> Tensor:
    n_players = game.players.count
    game.max_rows = _CHUNK
    total = torch.zeros(game.n_examples, n_players, dtype=torch.float64)
    for some in torch.arange(_PERMUTATION_PAIRS).split(100):
        order = uniform(some, (n_players,), seed=1).argsort(-1)
        for rank in (order.argsort(-1), order.flip(-1).argsort(-1)):
            members = (rank.unsqueeze(1) < torch.arange(n_players + 1).unsqueeze(1)).flatten(0, 1)
            worths = game.worths(members.expand(game.n_examples, -1, -1)).squeeze(-1).double()
            gains = worths.unflatten(1, (len(some), -1)).diff(dim=-1)
            total += gains.gather(2, rank.expand(game.n_examples, -1, -1)).sum(1)
    return (total / (2 * _PERMUTATION_PAIRS)).float()


def _integrated_gradients(game: Game) -> Tensor:
    nodes, weights = gauss_legendre(50)
    total = torch.zeros(())
    for piece in range(40):
        measured = game.effects((nodes + piece) / 40)
        assert measured is not None, "path references need a model with a gradient"
        total = total + measured[0].squeeze(-1).double() @ (weights / 40)
    return total.float()
