"""Evidence of one explained model, measured within a budget."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from captum_meta import _random
from captum_meta._model import wide
from captum_meta.estimators import plan_coalitions, sample_coalitions
from captum_meta.evidence.game import Game
from captum_meta.types import SHAPLEY_POINTS, Coalitions, Evidence

_BORDER_PLAYERS = 32
"""Up to this many players the border is measured when no budget is given."""
_MAX_INPUT_PLAYERS = 4096
_GRADIENT_COST = 3
"""Evaluations that a gradient counts as."""
_ROUNDING = 8
"""Units in the last place by which two evaluations of the same input may differ: a batch's rows are not rounded alike."""


def measure_shapley(game: Game, n_samples: int | None = None, seed: int = 0) -> Evidence:
    """Gradients at baseline, midway and input, and coalitions, of every row of a game.

    Args:
        game: the explained model and the rows.
        n_samples: coalitions a row. None: the border (2M) where there are at most 32 players, else none. Rows without a
            gradient get the border all the same, with a warning.
        seed: of the coalitions sampled inside the border.

    Returns:
        Evidence ``(N * K, M, 5)``, with the K outputs of each row side by side. Three gradients, or two forwards where there
        is no gradient, and ``n_samples`` forwards a row.
    """
    measurement = ShapleyMeasurement(game, n_samples, seed)
    measurement.evaluate()
    return measurement.evidence()


def measure_support(game: Game, n_samples: int, evaluations: int) -> Evidence:
    """Evidence of support rows as a query of ``n_samples`` coalitions has it, for learners that model f.

    Beside it each row has coalitions for so many ``evaluations``, among them all players and none: a third as many with f's
    gradient where every row has one, whose elements are known one by one, else with f alone.
    """
    evidence = measure_shapley(game, n_samples)
    if not evaluations:
        return evidence
    evidence = with_elements(evidence, game)
    players = game.mask
    smooth = evidence.elements is not None and bool(evidence.measured[..., :3].any(-1).any(-1).all())
    smooth = smooth and game.players.apart
    count = evaluations // _GRADIENT_COST if smooth else evaluations
    members, planned = sample_coalitions(players, max(0, count - 2), 0, row_keys(game))
    members = torch.cat([members, players.unsqueeze(1), torch.zeros_like(players).unsqueeze(1)], dim=1)
    planned = nn.functional.pad(planned, (0, 2), value=True)
    found = game.coalition_slopes(members) if smooth else None
    slopes, values = (None, game.worths(members, planned)) if found is None else found
    worths = torch.where(planned.unsqueeze(-1), values - values[:, -1:], 0.0)
    slopes = None if slopes is None else _outputs_first(slopes)
    return replace(evidence, coalitions=replace(_per_output(members, worths, planned), slopes=slopes))


def with_elements(evidence: Evidence, game: Game) -> Evidence:
    """Evidence that tells each element of the players; as it is where it does, or the model gives one number for a batch."""
    if evidence.elements is not None or game.n_rows != game.n_examples:
        return evidence
    sides = (tuple(wide(part) for part in side) for side in (game.inputs, game.baselines))
    elements = torch.stack([game.players.gather(side) for side in sides], dim=-1).to(evidence.effects)
    return replace(evidence, elements=elements.repeat_interleave(len(evidence.total) // len(elements), 0))


class ShapleyMeasurement:
    """What is known of every row of a game, and the plan of what to evaluate next.

    Args:
        game, n_samples, seed: as for :func:`measure_shapley`. The gradients are measured at once, coalitions when asked for.

    Attributes:
        length: coalitions of the longest plan.
    """

    def __init__(self, game: Game, n_samples: int | None = None, seed: int = 0) -> None:
        self.game = game
        points = torch.tensor(SHAPLEY_POINTS)
        gradients = game.effects(points)
        values = game.at(points[[0, 2]]) if gradients is None else gradients[1]
        self.start, self.total = values[:, -1], values[:, 0] - values[:, -1]
        n_rows, n_outputs = self.total.shape
        n_players = game.players.count
        self.points = points.to(self.total)
        self.channels = self.total.new_zeros(n_rows, n_players, 5, n_outputs)
        self.known = torch.zeros(self.channels.shape, dtype=torch.bool, device=self.total.device)
        self.curve = self.total.new_zeros(n_rows, 3, n_outputs)
        self.curve[:, 0] = self.total
        flat = torch.ones(n_rows, n_outputs, dtype=torch.bool, device=self.total.device)
        if gradients is not None:
            self.channels[:, :, :3] = gradients[0]
            flat = (gradients[0] == 0).all(dim=2).all(dim=1) & (self.total != 0)
            self.known[:, :, :3] = ~flat[:, None, None]
            self.curve[:, 1] = torch.where(flat, 0.0, values[:, 1] - self.start)
        budget, everyone = _budget(n_samples, n_players), True
        if budget == 0 and bool(flat.any()):
            budget, everyone = 2 * n_players, False
            _warn_of_coalitions(n_players)
        priority = self.channels[:, :, :3].abs().sum((2, 3)) if gradients is not None else None
        self.members, self.planned = plan_coalitions(game.mask, budget, seed, row_keys(game), priority)
        if not everyone:
            self.planned &= flat.any(1, keepdim=True)
        self.measured = torch.zeros_like(self.planned)
        self.worths = self.total.new_zeros(*self.planned.shape, n_outputs)
        self.inputs = player_inputs(game)

    @property
    def length(self) -> int:
        return self.planned.shape[1]

    def evaluate(self, count: int | None = None, rows: Tensor | None = None) -> None:
        """Evaluate the first ``count`` coalitions of the plans (by default all) of the ``rows`` ``(N,)`` bool."""
        wanted = self.planned & ~self.measured
        wanted[:, self.length if count is None else count :] = False
        if rows is not None:
            wanted &= rows.unsqueeze(1)
        if not bool(wanted.any()):
            return
        values = self.game.worths(self.members, wanted) - self.start.unsqueeze(1)
        self.worths = torch.where(wanted.unsqueeze(-1), values, self.worths)
        self.measured |= wanted

    def evidence(self, rows: Tensor | None = None) -> Evidence:
        """All that was measured so far of the ``rows`` ``(R,)``, by default of all."""
        if rows is None:
            rows = torch.arange(len(self.total), device=self.total.device)
        channels, known, total, mask = self.channels[rows], self.known[rows], self.total[rows], self.game.mask[rows]
        length = int(self.measured[rows].any(0).sum())
        members, worths, measured = (part[rows, :length] for part in (self.members, self.worths, self.measured))
        rounding = (
            _ROUNDING * torch.finfo(total.dtype).eps * torch.maximum(self.start.abs(), (self.start + self.total).abs())
        )
        _read_border(channels, known, members, worths, measured, mask, total, rounding[rows])
        n_rows, n_players, _, n_outputs = channels.shape
        everyone = mask.unsqueeze(-1).expand(n_rows, n_players, n_outputs)
        return Evidence(
            effects=_outputs_first(channels),
            measured=_outputs_first(known & everyone.unsqueeze(2)),
            players=_outputs_first(everyone),
            total=total.flatten(),
            curve=_outputs_first(self.curve[rows]),
            points=self.points.expand(n_rows * n_outputs, -1),
            coalitions=_per_output(members, worths, measured) if _beyond_border(members, measured, mask) else None,
            inputs=None if self.inputs is None else self.inputs[rows].repeat_interleave(n_outputs, 0),
            targets=self._targets(rows, n_outputs),
        )

    def _targets(self, rows: Tensor, n_outputs: int) -> Tensor | None:
        if n_outputs > 1:
            return torch.arange(n_outputs, device=rows.device).repeat(len(rows))
        labels = self.game.labels
        return None if labels is None else labels.to(rows.device)[rows]


def row_keys(game: Game) -> Tensor:
    """One int64 for each row of the game, a hash of its inputs and baselines: equal rows have equal keys in any batch."""
    keys = _random.row_keys((*game.inputs, *game.baselines))
    return keys if game.n_rows == game.n_examples else keys.sum(0, keepdim=True)


def _budget(n_samples: int | None, n_players: int) -> int:
    if n_samples is None:
        return 2 * n_players if n_players <= _BORDER_PLAYERS else 0
    if n_samples < 0:
        raise ValueError(f"n_samples must not be negative, got {n_samples}: pass 0 to use gradients only.")
    return n_samples


def _warn_of_coalitions(n_players: int) -> None:
    warnings.warn(
        f"The explained model has no gradient for some rows, so {2 * n_players} coalitions of each of them are evaluated "
        "instead. Pass n_samples to choose their number.",
        stacklevel=5,
    )


def _read_border(
    channels: Tensor,
    known: Tensor,
    members: Tensor,
    worths: Tensor,
    measured: Tensor,
    mask: Tensor,
    total: Tensor,
    rounding: Tensor,
) -> None:
    """Fill in leave-one-out and add-one-in from the coalitions of one player, and of all but one; rounding counts as 0."""
    absent = mask.unsqueeze(1) & ~members
    for channel, single, value in ((4, members, worths), (3, absent, total.unsqueeze(1) - worths)):
        rows, coalitions = (measured & (single.sum(-1) == 1)).nonzero(as_tuple=True)
        players = single[rows, coalitions].to(torch.uint8).argmax(-1)
        effects = value[rows, coalitions]
        channels[rows, players, channel] = torch.where(effects.abs() <= rounding[rows], 0.0, effects)
        known[rows, players, channel] = True


def _beyond_border(members: Tensor, measured: Tensor, mask: Tensor) -> bool:
    """Whether a row knows more than its border, or all its coalitions (the border is all there is up to 3 players)."""
    sizes, n_players = members.sum(-1), mask.sum(-1)
    inside = (measured & (sizes > 1) & (sizes < n_players.unsqueeze(-1) - 1)).any()
    complete = (n_players > 1) & (n_players < 4) & (measured.sum(-1) == 2**n_players - 2)
    return bool(inside) or bool(complete.any())


def _outputs_first(values: Tensor) -> Tensor:
    """``(N, ..., K)`` to ``(N * K, ...)``."""
    return values.movedim(-1, 1).flatten(0, 1)


def _per_output(members: Tensor, worths: Tensor, measured: Tensor) -> Coalitions:
    n_outputs = worths.shape[-1]
    repeat = [part.repeat_interleave(n_outputs, 0) for part in (members, measured)]
    return Coalitions(repeat[0], _outputs_first(worths), repeat[1])


def player_inputs(game: Game) -> Tensor | None:
    """Sums of each player's inputs and baselines, ``(N, M, 2)``; None where they are many or not numbers."""
    if game.players.count > _MAX_INPUT_PLAYERS or game.n_rows != game.n_examples:
        return None
    parts: Sequence[tuple[Tensor, ...]] = (game.inputs, game.baselines)
    return torch.stack([game.players.collect(tuple(tensor.float() for tensor in tensors)) for tensors in parts], dim=-1)
