"""A learner whose answers are plain, so that the contract of the front ends does not lean on trained weights."""

from collections.abc import Iterator
from functools import lru_cache

import numpy as np
import pytest
import torch
from torch import Tensor

from captum_meta.learners import MetaLearner, ZeroShot
from captum_meta.nn import PathExplainer, ShapleyExplainer
from captum_meta.types import Kind


def untrained(kind: Kind) -> MetaLearner:
    """The explainer before training: a mean of the measured effects, completed."""
    return ZeroShot({"shapley": ShapleyExplainer, "path": PathExplainer}[kind](width=16, depth=1)).eval()  # type: ignore[index]


@pytest.fixture(autouse=True, scope="session")
def _nodes_are_solved_for_once() -> Iterator[None]:
    """Captum solves the eigenvalue problem behind the nodes of Gauss and Legendre twice a call, 0.1 s for 1,000 of them."""
    patch, solved = pytest.MonkeyPatch(), lru_cache(np.polynomial.legendre.leggauss)
    patch.setattr(np.polynomial.legendre, "leggauss", solved)
    yield
    patch.undo()


@pytest.fixture(autouse=True)
def _seeded() -> None:
    torch.manual_seed(0)


def probe(n_rows: int) -> int:
    """Evaluations that tell whether the rows of a batch may be evaluated apart."""
    return min(n_rows, 8) + 1


class CountingModel(torch.nn.Module):
    """A small net that counts the rows it is evaluated on."""

    def __init__(self, n_players: int = 6, n_outputs: int = 3) -> None:
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.Linear(n_players, 16), torch.nn.Tanh(), torch.nn.Linear(16, n_outputs))
        self.rows = 0

    def forward(self, x: Tensor) -> Tensor:
        self.rows += len(x)
        return self.layers(x)
