"""Explanations of rows by shares of a network's game, each with what it leaves of the rows' own coalitions."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from captum_meta.attr._arithmetic import explain_alone
from captum_meta.attr._surrogate_values import values_of_surrogate
from captum_meta.attr._units import InUnits
from captum_meta.games import SurrogateGame
from captum_meta.learners import ZeroShot
from captum_meta.nn.encoders import effect_sizes
from captum_meta.records import Record
from captum_meta.types import Evidence

SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Shares of the network's game that are tried."""
_CAREFUL, _CAREFUL_AT_BORDER = 1.5, 4.0
"""How much larger bounds are than those of games that are rough in no other way than models are."""


@dataclass(frozen=True)
class Options(Record):
    """Explanations of rows by W shares of the network.

    Attributes:
        attributions, bounds: ``(N, W, M)`` and ``(N, W)``.
        unexplained: ``(N, W)``, squared errors of the row's coalitions, each predicted from all others.
    """

    attributions: Tensor
    bounds: Tensor
    unexplained: Tensor

    def chosen(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """The attributions and bounds of one share for each row."""
        rows = torch.arange(len(shares), device=shares.device)
        return self.attributions[rows, shares], self.bounds[rows, shares]


def options_of(evidence: Evidence, game: SurrogateGame, learner: InUnits, unit: Tensor, with_bounds: bool) -> Options:
    """Explanations with each share of the network."""
    explainer = InUnits(ZeroShot(learner.learner.explainer))
    values, taken = _of_acting(values_of_surrogate(game), effect_sizes(evidence) > 0), _taken(game, evidence)
    few = evidence.coalitions is None or evidence.coalitions.members.shape[-2] <= 2 * evidence.players.shape[-1]
    careful = _CAREFUL_AT_BORDER if few else _CAREFUL
    found = []
    for share in SHARES[1:]:
        left = _mixed(evidence, taken, share)
        rest, bound = explain_alone(explainer, None, left, with_bounds)
        answer = share * values + rest
        size = answer.square().sum(-1)
        bound = careful * bound * rest.square().sum(-1) / torch.where(size > 0, size, 1.0)
        found.append(Options(answer, bound, learner.left_out_error(left, evidence, unit)))
    return Options(*(torch.stack([getattr(part, f.name) for part in found], dim=1) for f in fields(Options)))


def errors_at(evidence: Evidence, game: SurrogateGame, learner: InUnits, members: Tensor, differences: Tensor) -> Tensor:
    """Squared errors ``(R, W)`` at pairs ``(R, P, M)``, predicted with each share of the network, and none."""
    taken, others = _taken(game, evidence), evidence.players.unsqueeze(1) & ~members
    of_network = game.worths(members) - game.worths(others)
    found = [
        learner.prediction_error(_mixed(evidence, taken, share), evidence, members, differences - share * of_network)
        for share in SHARES
    ]
    return torch.stack(found, dim=1)


def _of_acting(values: Tensor, acts: Tensor) -> Tensor:
    """Values ``(N, M)`` of the acting players alone, with the same sum: few coalitions give others a little by mistake."""
    idle = torch.where(acts, 0.0, values).sum(1, keepdim=True)
    return torch.where(acts, values + idle / acts.sum(1, keepdim=True).clamp(min=1), 0.0)


def _taken(game: SurrogateGame, evidence: Evidence) -> Evidence:
    """The row's evidence less that of the network, coalitions inside the border included."""
    rest, coalitions = game.taken_from(replace(evidence, coalitions=None)), evidence.coalitions
    acts = effect_sizes(evidence) > 0
    rest = replace(rest, effects=torch.where(acts.unsqueeze(-1), rest.effects, 0.0))
    if coalitions is None:
        return rest
    worths = torch.where(coalitions.measured, coalitions.worths - game.worths(coalitions.members), 0.0)
    return replace(rest, coalitions=replace(coalitions, worths=worths))


def _mixed(before: Evidence, after: Evidence, share: float) -> Evidence:
    """Evidence a share of the way."""
    one, other = before.coalitions, after.coalitions
    if one is not None and other is not None:
        one = replace(one, worths=torch.lerp(one.worths, other.worths, share))
    return replace(
        before,
        effects=torch.lerp(before.effects, after.effects, share),
        total=torch.lerp(before.total, after.total, share),
        curve=torch.lerp(before.curve, after.curve, share),
        coalitions=one,
    )
