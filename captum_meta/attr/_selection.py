"""What is explained: one output or several, against baselines or against background rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from captum_meta.games.arguments import Outputs


def selection(target: Any, outputs: Any) -> Any:
    """The selector of the outputs to be explained: the target, or several outputs."""
    if outputs is None:
        return target
    assert target is None, "target and outputs were both passed: pass target= for one output, or outputs= for several."
    return Outputs(None if outputs == "all" else tuple(outputs))


def of_outputs(tensors: Sequence[Tensor], shape: tuple[int, ...]) -> Tensor:
    """Tensors ``(N, *)`` of each output, stacked as ``(N, *shape, *)``; ``shape`` is ``()`` for a single output."""
    stacked = torch.stack(list(tensors), dim=1)
    return stacked.reshape(len(stacked), *shape, *stacked.shape[2:])


def side_by_side(parts: Sequence[tuple[Tensor, ...]], shape: tuple[int, ...]) -> tuple[Tensor, ...]:
    """The same for each part of several outputs' attributions."""
    return tuple(of_outputs(some, shape) for some in zip(*parts, strict=True))


def check_background_alone(baselines: Any, background: Any) -> Any:
    """The baselines: those given, or a single background row; None for several background rows.

    Raises:
        AssertionError: if both were given.
    """
    if background is None:
        return baselines
    assert baselines is None, (
        "baselines and background were both passed: pass baselines= for one game of each row, or background= for the "
        "mean of the games over its rows."
    )
    parts = background if isinstance(background, tuple) else (background,)
    return background if all(part.dim() > 0 and len(part) == 1 for part in parts) else None


def rows_at_once(perturbations_per_eval: int | None, n_examples: int) -> int | None:
    """Rows evaluated at once: ``perturbations_per_eval`` coalitions of all examples; None for as many as fit into memory."""
    return None if perturbations_per_eval is None else perturbations_per_eval * n_examples
