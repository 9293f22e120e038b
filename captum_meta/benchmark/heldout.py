"""The held-out problems: fixed by name and seed before any training, and used by all comparisons.

A name holds data, architecture, output and baseline. Its checksum is the seed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any
from zlib import crc32

import torch
from torch import Tensor

from captum_meta.benchmark.heldout_data import DATA, Table
from captum_meta.benchmark.heldout_models import Model, trained
from captum_meta.benchmark.problem import Problem, some_rows
from captum_meta.benchmark.references import Reference, exact_shapley, long_path, sampled_shapley
from captum_meta.evidence import Game

SUPPORT_ROWS = 16
_QUERIES, _SUPPORT = 12, 64
_EXACT_PLAYERS = 16
_PERMUTATION_PAIRS, _MANY_PLAYERS, _FEWER_PAIRS = 3000, 32, 1000

_CLASSES = ("breast-cancer", "wine", "adult")
_NUMBERS = ("diabetes", "bike", "california")


def held_out_names() -> list[str]:
    """All problems, in a fixed order; what came later stands behind.

    >>> len(held_out_names())
    75
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
    names += [f"mnist-patches/cnn/{out}/zero" for out in ("logit", "probability")]
    names += [f"mnist-blocks/{m}/probability/zero" for m in ("cnn", "mlp")]
    names += [f"sentences/minilm/similarity/{base}" for base in _BASELINES]
    return names


_BASELINES = ("zero", "row")


def quick_names() -> list[str]:
    """One or two problems of every family, output and number of players, chosen by the time that they take."""
    return [
        "breast-cancer/residual/probability/row",
        "wine/mlp/logit/zero",
        "wine/transformer/probability/zero",
        "california/mlp/value/row",
        "adult/trees/logit/zero",
        "diabetes/trees/value/row",
        "bike/rnn/value/zero",
        "digits-rows/rnn/probability/zero",
        "digits-patches/cnn/logit/zero",
    ]


@dataclass(frozen=True, kw_only=True)
class HeldOutProblem(Problem):
    """A trained model ``(B, *features) -> (B, K)`` with 12 rows to explain, and 16 of its training data to adapt to.

    Attributes:
        name: data, architecture, output and baseline.
        all_support: 64 rows of the training data, of which ``support`` are the first.
    """

    name: str
    all_support: Mapping[str, Any]

    @property
    def family(self) -> str:
        """The architecture."""
        return self.name.split("/")[1]


@lru_cache(maxsize=16)
def _table(data: str) -> Table:
    return DATA[data]()


def whole_table(name: str) -> Table:
    """All data of a problem, of which its model has learned the first 70 %."""
    return _table(name.split("/")[0])


def explained(name: str, model: Model, rows: slice | Tensor, starts: slice | Tensor) -> dict[str, Tensor | None]:
    """Arguments for rows of a problem's data; the rows ``starts`` are their baselines, where the name says so."""
    table = whole_table(name)
    x = table.x[rows]
    with torch.no_grad():
        target = model(x).argmax(1)
    baselines = table.x[starts] if name.endswith("/row") else torch.zeros_like(x)
    return {"inputs": x, "baselines": baselines, "target": target, "feature_mask": table.feature_mask}


@lru_cache(maxsize=128)
def load_held_out(name: str) -> HeldOutProblem:
    """Train the model of a problem, the same at every call.

    Raises:
        ValueError: if there is no problem of that name.
    """
    if name not in held_out_names():
        raise ValueError(f"There is no held-out problem {name!r}: pass one of held_out_names().")
    _, architecture, output, _ = name.split("/")
    table = whole_table(name)
    n_train = int(0.7 * len(table.x))
    network = trained(architecture, table, crc32(name.encode()) % 1000, slice(0, n_train))
    model = Probability(network) if output == "probability" else network
    support = explained(name, model, slice(0, _SUPPORT), slice(_SUPPORT, 2 * _SUPPORT))
    queries, starts = slice(n_train, n_train + _QUERIES), slice(2 * _SUPPORT, 2 * _SUPPORT + _QUERIES)
    return HeldOutProblem(
        name=name,
        model=model,
        arguments=explained(name, model, queries, starts),
        support=some_rows(support, slice(0, SUPPORT_ROWS)),
        all_support=support,
        has_gradient=architecture != "trees",
    )


class Probability(torch.nn.Module):
    """Softmax of a model's logits."""

    def __init__(self, network: Model) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        return self.network(x).softmax(1)


def reference(problem: HeldOutProblem, kind: str, folder: Path | None = None) -> Tensor:
    """The reference: exact Shapley values, or Integrated Gradients of 2,000 points; ``(12, M)``.

    Shapley values of more than 16 players are means over 3,000 antithetic pairs of permutations, of more than 32 over
    1,000: unbiased.
    """
    path = folder and folder / f"{problem.name.replace('/', '_')}-{kind}.pt"
    if path is not None and path.is_file():
        return torch.load(path, weights_only=True)
    values = _computed(problem.game(), kind).values
    if path is not None:
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(values, path)
    return values


def _computed(game: Game, kind: str) -> Reference:
    if kind == "path":
        return long_path(game)
    if game.players.count <= _EXACT_PLAYERS:
        return exact_shapley(game)
    return sampled_shapley(game, _PERMUTATION_PAIRS if game.players.count <= _MANY_PLAYERS else _FEWER_PAIRS)
