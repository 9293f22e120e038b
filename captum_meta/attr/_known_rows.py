"""The rows of one model in a memory, and their evaluations in the form that networks read."""

from __future__ import annotations

from collections.abc import Hashable

import torch
from torch import Tensor
from torch.nn import functional

from captum_meta import _random
from captum_meta.evidence import Game, row_keys
from captum_meta.nn.cross_fitted import FOLDS, KnownRows
from captum_meta.nn.refinement import border_coalitions
from captum_meta.types import LEAVE_ONE_OUT, Evidence

_MOST_COALITIONS = 512
"""Most coalitions kept of a row."""


class Rows:
    """The last ``most`` rows that were explained; a row explained again replaces its former entry."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.known: KnownRows | None = None
        self.keys = self._names = torch.zeros(0, dtype=torch.long)

    @property
    def examples(self) -> int:
        """Number of rows, whichever of their outputs are known."""
        return len(self._names.unique())

    def __len__(self) -> int:
        return len(self.keys)

    def add(self, known: KnownRows, keys: Tensor) -> int:
        """Keep these rows, with keys ``(N,)``; returns the number of new coalitions."""
        names = keys.cpu()
        keys = _random.mix(keys + known.outputs * _random.GOLDEN).cpu()
        fresh = int(known.measured.sum())
        if self.known is not None:
            again = torch.isin(self.keys, keys)
            before = self.known.to(known.values.device, known.values.dtype)
            fresh -= int(before.measured[again.to(known.values.device)].sum())
            kept = before[~again.to(known.values.device)]
            longest = max(known.values.shape[1], kept.values.shape[1])
            known = KnownRows.concatenate([kept.padded(S=longest), known.padded(S=longest)])
            keys, names = torch.cat([self.keys[~again], keys]), torch.cat([self._names[~again], names])
        self.known, self.keys, self._names = known[-self.most :], keys[-self.most :], names[-self.most :]
        return fresh


def layout(game: Game) -> Hashable:
    """Properties that rows must share to be read by the same networks: the inputs' shapes, and the players' elements."""
    groups = game.players.groups
    key = None if groups is None else tuple(group.cpu().numpy().tobytes() for group in groups)
    return game.players.shapes, key


def known_rows(evidence: Evidence, start: Tensor, keys: Tensor) -> KnownRows:
    """Evaluations of rows ``(N,)`` with f(baseline) ``start (N,)``.

    The network of a row is chosen by its key ``(N,)``: explained again, the row is left out by the same one.
    """
    coalitions = (evidence.coalitions or border_coalitions(evidence)).first(_MOST_COALITIONS)
    players = evidence.players.unsqueeze(1)
    ends = torch.stack([evidence.total, torch.zeros_like(evidence.total)], dim=1)
    values = start.unsqueeze(1) + torch.cat([coalitions.worths, ends], dim=1)
    measured = functional.pad(coalitions.measured, (0, 2), value=True) & values.isfinite()
    assert evidence.elements is not None
    inputs, baselines = evidence.elements.to(values).unbind(-1)
    return KnownRows(
        inputs=inputs,
        baselines=baselines,
        members=torch.cat([coalitions.members, players, torch.zeros_like(players)], dim=1),
        values=torch.where(measured, values, 0.0),
        measured=measured,
        effects=evidence.effects[..., :LEAVE_ONE_OUT].to(values),
        differentiable=evidence.measured[..., :LEAVE_ONE_OUT] & evidence.total.isfinite()[:, None, None],
        outputs=torch.zeros_like(keys) if evidence.targets is None else evidence.targets.to(keys),
        folds=_random.mix(keys).remainder(FOLDS),
    )


def keys_of(game: Game, count: int) -> Tensor:
    """A key for each of ``count`` rows of evidence, the same for all outputs of a row."""
    return row_keys(game).repeat_interleave(count // game.n_rows)
