"""Support rows beside background rows: each is explained against a few of them, one at a time."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._random import row_keys, uniform
from captum_meta.games import MeanGame
from captum_meta.games.arguments import take_rows

_BACKGROUND_ROWS = 4
"""Per support row: further support rows gain more than further background rows of the same."""


def paired(
    forward_func: Callable[..., Any], inputs: Any, background: Any, target: Any, extra: Any, feature_mask: Any
) -> tuple[Any, ...]:
    """Arguments of a call whose rows are the ``inputs``, each four times, with background rows as their baselines.

    The choice depends on the row alone.

    Raises:
        AssertionError: for background rows of other shapes than the inputs.
    """
    game = MeanGame(forward_func, inputs, background, target, extra)
    order = uniform(row_keys(game.inputs), (game.count,), 0).argsort(1)[:, :_BACKGROUND_ROWS]
    pairs = game.with_one(order).batch
    rows = torch.arange(game.n_rows, device=game.device).repeat_interleave(order.shape[1])

    def masks(mask: Tensor) -> Tensor:
        return mask if len(mask) == 1 else take_rows(mask, rows, game.n_rows)

    groups = tuple(masks(mask) for mask in feature_mask) if isinstance(feature_mask, tuple) else feature_mask
    groups = masks(groups) if isinstance(groups, Tensor) else groups
    is_tuple = _captum.is_tuple(inputs)
    ends, starts = (_captum.format_output(is_tuple, parts) for parts in (pairs.inputs, pairs.baselines))
    return ends, starts, pairs.target, pairs.extra, groups
