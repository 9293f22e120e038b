"""The expectation of games over a background distribution."""

from __future__ import annotations

from collections.abc import Callable
from copy import copy
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, Num
from torch import Tensor

from captum_meta import _captum
from captum_meta._model import wide
from captum_meta.games.arguments import real_beside, select_outputs
from captum_meta.games.attempts import Place
from captum_meta.games.batch import Batch
from captum_meta.games.game import Game
from captum_meta.games.players import Players, Tensors

_BEYOND = 0.5 + 5**0.5 / 2
"""Position of missing values, in ranges of the background beyond it: unlikely to be a number's."""


class MeanGame:
    r"""The mean of games with K background rows as baselines: :math:`v(S) = \frac 1 K \sum_k f(x_S, b_{k,\bar S})`.

    It is evaluated at pairs of a coalition and a background row.

    Args:
        forward_func, inputs, target, additional_forward_args, feature_mask, max_rows, label: as for :class:`Game`.
        background: for each input ``(K, *features)``.
        weights: ``(K,)``, of the background rows in the mean; None for equal ones.

    Raises:
        AssertionError: for arguments that Captum refuses, and background rows of other shapes than the inputs.
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        inputs: Tensor | Tensors,
        background: Tensor | Tensors,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Any = None,
        max_rows: int | None = None,
        label: str | None = None,
        weights: Tensor | None = None,
    ) -> None:
        formatted, rows = _alike(_captum.format_tensor_into_tuples(inputs), _captum.format_tensor_into_tuples(background))
        first = tuple(part[:1] for part in rows)
        self.game = Game(forward_func, formatted, first, target, additional_forward_args, feature_mask, max_rows, label)
        self.background = rows
        weights = torch.ones(self.count) if weights is None else weights
        self.weights = (weights.double() / weights.double().sum()).to(self.device)

    @property
    def count(self) -> int:
        """K, the number of background rows."""
        return len(self.background[0])

    @property
    def inputs(self) -> Tensors:
        """For each input ``(B, *features)``."""
        return self.game.inputs

    @property
    def output_shape(self) -> torch.Size:
        """Of one row's selected outputs."""
        return self.game.output_shape

    @property
    def players(self) -> Players:
        """Which player each element of the inputs belongs to."""
        return self.game.players

    @property
    def answers(self) -> tuple[int, ...]:
        """The shape of what is explained: each row's outputs."""
        return (self.n_rows, *self.output_shape)

    @property
    def n_rows(self) -> int:
        """N, the number of examples."""
        return self.game.n_examples

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.game.device

    @property
    def mask(self) -> Bool[Tensor, "N M"]:
        """``(N, M)`` bool, which players each row has."""
        return self.players.mask.expand(self.n_rows, -1)

    def ends(self) -> tuple[Num[Tensor, "N O"], Num[Tensor, "N K O"]]:
        """f of the inputs ``(N, O)`` and of the background rows ``(N, K, O)``: N and, for all rows together, K evaluations.

        They are K for each row where additional arguments are tensors, or the model answers for the caller's batch only.
        """
        everyone = self.game.at(torch.ones(1))[:, 0]
        assert self.game.n_rows == self.n_rows, (
            "forward_func gives one number for the whole batch, of which background rows have none: pass baselines=."
        )
        extra = self.game.batch.extra or ()
        if self.game.together or any(isinstance(value, Tensor) and value.dim() > 0 for value in extra):
            nobody = torch.zeros(1, 1, self.players.count, dtype=torch.bool, device=self.device)
            drawn = torch.arange(self.count, device=self.device)
            return everyone, self.values(nobody.expand(self.n_rows, self.count, -1), drawn.expand(self.n_rows, -1))
        return everyone, self._background_values()

    def _background_values(self) -> Num[Tensor, "N K O"]:
        """``(N, K, O)`` from one evaluation of each background row; every example selects its own target."""
        target, rows = self.game.batch.target, self.background
        each = isinstance(target, list) or (isinstance(target, Tensor) and target.numel() > 1)
        batch = replace(self.game.batch, inputs=rows, baselines=rows, target=None if each else target)
        evaluation = self.game.evaluation.of(batch)
        found = evaluation.values(1, lambda index, turns: tuple(part[index] for part in rows))[:, 0]
        if not each:
            return found.expand(self.n_rows, -1, -1)
        outputs = found.reshape(len(found), *(evaluation.output_shape or ()))
        selected = [select_outputs(outputs, int(one) if isinstance(one, Tensor) else one) for one in target]
        return torch.stack([one.reshape(len(found), -1) for one in selected])

    def values(
        self, members: Bool[Tensor, "N S M"], drawn: Int64[Tensor, "N S"], wanted: Bool[Tensor, "N S"] | None = None
    ) -> Num[Tensor, "N S O"]:
        """f of the coalitions ``(N, S, M)`` with the background rows ``drawn (N, S)`` behind them, ``(N, S, O)``.

        Only of those ``wanted`` ``(N, S)``, and 0 for the others.
        """
        batch: Batch = self.game.batch

        def place(rows: Tensor, turns: Tensor) -> Tensors:
            keep = self.players.rows(rows).of_elements(members[rows, turns])
            behind = drawn[rows, turns]
            parts = zip(keep, batch.inputs, self.background, strict=True)
            return tuple(torch.where(k, x[rows], b[behind]) for k, x, b in parts)

        at_pairs: Place = place
        return self.game.evaluation.values(members.shape[1], at_pairs, wanted, self.game.label)

    def with_one(self, drawn: Int64[Tensor, "N R"]) -> Game:
        """The games with one background row each, ``drawn (N, R)``: ``N R`` rows, R of each."""
        rows = torch.arange(self.n_rows, device=self.device).repeat_interleave(drawn.shape[1])
        batch = self.game.batch.take(rows)
        return self.game.of(replace(batch, baselines=tuple(part[drawn.flatten()] for part in self.background)))

    def of(self, batch: Batch) -> MeanGame:
        """The mean game of other examples of the same model."""
        other = copy(self)
        other.game = self.game.of(batch)
        return other

    def take(self, rows: Int64[Tensor, " R"]) -> MeanGame:
        """The mean game of some of the examples."""
        return self.of(self.game.batch.take(rows))

    def player_values(self) -> Float[Tensor, "N K M D"]:
        """Each player's elements, of the input and of the background rows, ``(N, 1 + K, M, D)``.

        What is no number stands beyond those of the background.
        """
        own = self.players.gather(_numbers(self.game.inputs, self.background)).unsqueeze(1)
        behind = _numbers(self.background, self.background)
        each = len(self.players.mask) > 1
        parts = [
            self.players.rows(row).gather(behind) if each else self.players.gather(behind)
            for row in torch.arange(self.n_rows if each else 1, device=self.device).split(1)
        ]
        return torch.cat([own, torch.stack(parts).expand(self.n_rows, -1, -1, -1)], dim=1)


def _alike(inputs: Tensors, background: Tensors) -> tuple[Tensors, Tensors]:
    """Inputs and background rows in the same dtypes and on the same devices."""
    assert len(inputs) == len(background), (
        f"There are {len(background)} tensors of background rows for {len(inputs)} inputs: pass one for each input."
    )
    for x, rows in zip(inputs, background, strict=True):
        assert rows.shape[1:] == x.shape[1:] and rows.dim() == x.dim() and len(rows) > 0, (
            f"background has shape {tuple(rows.shape)} for an input of shape {tuple(x.shape)}: pass rows of shape "
            f"{('K', *x.shape[1:])}, K at least 1."
        )
    counts = {len(rows) for rows in background}
    assert len(counts) == 1, f"The inputs have {sorted(counts)} background rows: pass equally many of each, row by row."
    inputs = real_beside(inputs, background)
    return inputs, tuple(rows.detach().to(x) for x, rows in zip(inputs, background, strict=True))


def _numbers(tensors: Tensors, background: Tensors) -> Tensors:
    """Finite numbers for all elements; missing and infinite values have numbers of their own."""
    parts = []
    for part, rows in zip(map(_real, tensors), map(_real, background), strict=True):
        known, rows = wide(rows).isfinite(), wide(rows)
        high = torch.where(known, rows, -torch.inf).amax(0).nan_to_num(0.0, 0.0, 0.0)
        low = torch.where(known, rows, torch.inf).amin(0).nan_to_num(0.0, 0.0, 0.0)
        step, part = _BEYOND * (1 + high - low), wide(part)
        part = torch.where(part.isnan(), high + step, part)
        parts.append(torch.where(part == torch.inf, high + 2 * step, torch.where(part == -torch.inf, low - step, part)))
    return tuple(parts)


def _real(tensor: Tensor) -> Tensor:
    """Complex numbers as distinct real ones."""
    return tensor.real + _BEYOND * tensor.imag if tensor.is_complex() else tensor
