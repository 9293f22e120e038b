"""What the explained model is called with, for all rows or some of them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

Tensors = tuple[Tensor, ...]


def fill(inputs: Tensors, baselines: tuple[Any, ...]) -> Tensors:
    """Baselines as tensors of the inputs' shapes."""
    assert len(inputs) == len(baselines), (
        f"There are {len(baselines)} baselines for {len(inputs)} inputs: pass one baseline for each input."
    )
    filled = []
    for x, b in zip(inputs, baselines, strict=True):
        value = b.detach().to(x) if isinstance(b, Tensor) else torch.full_like(x, b)
        try:
            filled.append(value.expand_as(x))
        except RuntimeError as error:
            raise AssertionError(
                f"A baseline of shape {tuple(value.shape)} does not fit an input of shape {tuple(x.shape)}: pass a number, "
                "one row, or one row for each example."
            ) from error
    return tuple(filled)


def take_target(target: Any, rows: Tensor, n_examples: int) -> Any:
    """The targets of the rows, for those that name one for each example."""
    if isinstance(target, list):
        assert len(target) == n_examples, "Target list length does not match output!"
        return [target[row] for row in rows.tolist()]
    if isinstance(target, Tensor) and target.numel() > 1:
        assert target.shape == (n_examples,), (
            f"Tensor target dimension {tuple(target.shape)} is not valid: pass one target for each of {n_examples} examples."
        )
        return target[rows.to(target.device)]
    if isinstance(target, Tensor) and target.dim() == 1 and n_examples == 1:
        return int(target.item()) if not target.is_floating_point() else target
    return target


def take_rows(value: Any, rows: Tensor, n_examples: int) -> Any:
    """The rows of an additional argument that has one entry for each example; others as they are."""
    if isinstance(value, Tensor) and value.dim() > 0 and len(value) == n_examples:
        return value[rows.to(value.device)]
    return value
