"""A problem of a comparison: a model, rows to explain, and perhaps rows to adapt to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from captum_meta._captum import format_tensor_into_tuples
from captum_meta.evidence import Game


@dataclass(frozen=True, kw_only=True)
class Problem:
    """A model and rows of it to explain.

    Attributes:
        model: any callable, as in Captum.
        arguments: of Captum's ``attribute``: inputs, baselines, target, additional_forward_args, feature_mask.
        support: of our ``adapt``: the same for the rows to adapt to, perhaps with their attributions; None for none.
        has_gradient: whether the model can be differentiated.
        seed: of methods that sample.
    """

    model: Callable[..., Any]
    arguments: Mapping[str, Any]
    support: Mapping[str, Any] | None = None
    has_gradient: bool = True
    seed: int = 0

    @property
    def path_arguments(self) -> dict[str, Any]:
        """Those of the arguments that path methods take."""
        return {name: value for name, value in self.arguments.items() if name != "feature_mask"}

    @cached_property
    def n_players(self) -> int:
        """M."""
        return self.game().players.count

    @property
    def base_cost(self) -> int:
        """Evaluations per row that our Shapley methods spend before any coalition: three gradients, or two forwards."""
        return 9 if self.has_gradient else 2

    def game(self) -> Game:
        """The rows to explain, of a model that is known to answer for each of them alone."""
        game = Game(self.model, **self.arguments)
        game.evaluation.together = False
        return game


def some_rows(arguments: Mapping[str, Any], rows: slice | Tensor) -> dict[str, Any]:
    """The arguments of some of the rows, whose features have the players of all."""
    return {name: value if name == "feature_mask" else value[rows] for name, value in arguments.items()}


def player_values(problem: Problem, attributions: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Attributions of Captum's shapes, a group's value repeated, as ``(B, M)``."""
    ones = tuple(torch.ones_like(part) for part in format_tensor_into_tuples(attributions))
    return player_sums(problem, attributions) / player_sums(problem, ones).clamp(min=1)


def completed(values: Tensor, total: Tensor) -> Tensor:
    """Attributions ``(B, M)`` with what they miss of the totals ``(B,)`` spread evenly."""
    return values + ((total - values.sum(1)) / values.shape[1]).unsqueeze(1)


def player_sums(problem: Problem, attributions: Tensor | tuple[Tensor, ...]) -> Tensor:
    """Attributions of elements, summed over each player's, ``(B, M)``."""
    return problem.game().players.collect(format_tensor_into_tuples(attributions)).detach()
