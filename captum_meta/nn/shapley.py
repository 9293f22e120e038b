"""The explainer of Shapley values."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from captum_meta.nn.blocks import PoolingBlock, linear_of_parts, masked_mean, player_sizes
from captum_meta.nn.error_head import numbers_of, shipped_error_head
from captum_meta.nn.explainer import Explainer, Prediction, Prior, gap_shares, row_scale
from captum_meta.nn.pair_games import from_pairs
from captum_meta.nn.refinement import (
    MAX_POSTERIOR,
    Doubts,
    all_pairs,
    border_coalitions,
    doubts_of,
    exact,
    is_complete,
    judging_pairs,
    posterior_of,
    precision,
    refined,
    telling_pairs,
    tells_the_border,
)
from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT, SHAPLEY_CHANNELS, Evidence


class _Read(NamedTuple):
    """The players' last hidden units and effects, the row's scale, and what :func:`from_pairs` gives."""

    features: Float[Tensor, "*batch M W"]
    effects: Float[Tensor, "*batch M C"]
    scale: Float[Tensor, "*batch"]
    of_pairs: Float[Tensor, "*batch M"]
    share: Float[Tensor, "*batch 1"]

    @classmethod
    def of(cls, hidden: Float[Tensor, "*batch M W"], width: int, evidence: Evidence) -> _Read:
        """From what :meth:`ShapleyExplainer.hidden` gives; what depends on no parameter is given no gradients."""
        features, rest = hidden.tensor_split([width], dim=-1)
        if not (evidence.effects.requires_grad or evidence.total.requires_grad):
            rest = rest.detach()
        effects, of_pairs, of_row = rest.split([len(SHAPLEY_CHANNELS), 1, 2], dim=-1)
        scale, share = of_row[..., 0, :].split(1, dim=-1)
        return cls(features, effects, scale.squeeze(-1), of_pairs.squeeze(-1), share)


class ShapleyExplainer(Explainer):
    """Three gradients, the border, or both, to Shapley values; more coalitions refine them.

    The border are the 2M coalitions of one player and of all but one; coalitions inside it have 2 to M - 2 players.

    Each player's effects, divided by the row's scale, pass through blocks that pool over all players. The answer is a
    per-player mixture of the measured effects plus a residual that is bounded by them, so a player without any effect
    gets none. Where coalitions inside the border were evaluated, this answer is the prior mean of the hypercube
    posterior, whose covariance the network sets player by player.

    Args:
        width: width of the hidden layers.
        depth: number of pooling blocks.
    """

    kind = "shapley"
    reading = ("head.*",)
    batched_by_hand = True

    def __init__(self, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.width, self.depth = width, depth
        channels = len(SHAPLEY_CHANNELS)
        self.encode = nn.Sequential(nn.Linear(6 * channels + 6, width), nn.GELU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList([PoolingBlock(width) for _ in range(depth)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, channels + 4)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def hidden(self, evidence: Evidence) -> Float[Tensor, "*batch M W"]:
        """The last hidden units, followed by other inputs of the head, for inner loops to compute them once."""
        read = self._read(evidence)
        of_row = torch.stack([read.scale, read.share.squeeze(-1)], dim=-1).unsqueeze(-2).expand(*read.of_pairs.shape, 2)
        return torch.cat([read.features, read.effects, read.of_pairs.unsqueeze(-1), of_row], dim=-1)

    def _read(self, evidence: Evidence) -> _Read:
        effects, measured, scale = _scaled(evidence)
        first, activation, second = self.encode
        hidden = second(activation(linear_of_parts(first, *_inputs(effects, measured, evidence, scale))))
        for block in self.blocks:
            hidden = block(hidden, evidence.players)
        return _Read(self.norm(hidden), effects, scale, *from_pairs(effects, measured, evidence, evidence.total / scale))

    def prior(self, evidence: Evidence, hidden: Float[Tensor, "*batch M W"] | None = None) -> Prior:
        read = self._read(evidence) if hidden is None else _Read.of(hidden, self.width, evidence)
        features, effects, scale = read.features, read.effects, read.scale
        measured = evidence.measured & evidence.players.unsqueeze(-1)
        mixture, rest = self.head(features).split([effects.shape[-1], 4], dim=-1)
        shift, spread, additive, rates = rest.unbind(-1)
        size = player_sizes(effects, measured, evidence.players, torch.ones_like(scale))
        weights = mixture.masked_fill(~measured, -1e9).softmax(-1)
        answer = (weights * effects).sum(-1) + size * 2 * torch.tanh(shift)
        answer = read.of_pairs.lerp(answer, read.share)
        relative = (size / masked_mean(size, evidence.players).unsqueeze(-1).clamp(min=1e-6)).clamp(1e-2, 1e2)
        known = evidence.players & (size > 0)
        few = torch.log(1.5 / evidence.n_players.clamp(min=1).to(size)).unsqueeze(-1)
        return Prior(
            attributions=torch.where(measured.any(-1), answer, 0.0) * scale.unsqueeze(-1),
            spread=gap_shares(size * spread.exp(), evidence.players),
            scale=scale,
            features=features * (size * scale.unsqueeze(-1)).unsqueeze(-1),
            additive=torch.where(known, relative * (additive - 2).exp().clamp(max=100), 0.0),
            rates=torch.where(known, 0.003 + 0.94 * torch.sigmoid(rates + few + 0.5 * relative.log()), 0.0),
        )

    def complete(self, prior: Prior, evidence: Evidence) -> Prediction:
        before, coalitions = super().complete(prior, evidence), evidence.coalitions
        if coalitions is None:
            return before
        if is_complete(coalitions, evidence):
            return Prediction(torch.where(evidence.acting, exact(coalitions, evidence.total), 0.0), before.gap)
        dtype, further = precision(coalitions, evidence), coalitions.beyond_border(evidence.players)
        if further.dim() == 1 and coalitions.members.shape[-2] <= MAX_POSTERIOR and not bool(further.all()):
            rows = further.nonzero().squeeze(-1)
            if not len(rows):
                return before
            values = refined(prior[rows], before[rows], evidence[rows], dtype)
            return Prediction(before.attributions.index_copy(0, rows, values), before.gap)
        return Prediction(refined(prior, before, evidence, dtype), before.gap)

    def complete_with_error(self, prior: Prior, evidence: Evidence) -> tuple[Prediction, Float[Tensor, "*batch"]]:
        if _known_error(evidence) is not None:
            return super().complete_with_error(prior, evidence)
        answer, players, rows = self.numbered(prior, evidence)
        return answer, _estimate(players, rows, evidence, answer.attributions)

    def estimate_error(
        self, prior: Prior, evidence: Evidence, attributions: Float[Tensor, "*batch M"]
    ) -> Float[Tensor, "*batch"]:
        """The relative squared error that nine in ten rows stay below, ``(*batch,)``, by the shipped error head.

        0 where all coalitions were evaluated. NaN where the error cannot be estimated: where fewer coalitions than the
        border's were evaluated, or only those of a border larger than 2,048. Infinite where no player is known to act. Of
        more than 2,048 coalitions only the first are used, which overstates the error.
        """
        known = _known_error(evidence)
        if known is not None:
            return torch.full_like(evidence.total, known)
        before = super().complete(prior, evidence)
        doubts = self._doubts(prior, before, evidence)
        numbers = self.error_numbers(prior, evidence, attributions, before.attributions, doubts)
        return _estimate(*numbers, evidence, attributions)

    def numbered(
        self, prior: Prior, evidence: Evidence
    ) -> tuple[Prediction, Float[Tensor, "*batch M A"], Float[Tensor, "*batch R"]]:
        """The answer, and :meth:`error_numbers` of it from the same posterior."""
        before = super().complete(prior, evidence)
        doubts = self._doubts(prior, before, evidence)
        answer = Prediction(doubts.answer, before.gap)
        return answer, *self.error_numbers(prior, evidence, doubts.answer, before.attributions, doubts)

    def _doubts(self, prior: Prior, before: Prediction, evidence: Evidence) -> Doubts:
        negative = replace(evidence.times(-torch.ones_like(evidence.total)), coalitions=None)
        return doubts_of(prior, before, evidence, -self(negative).attributions)

    def left_out_error(self, evidence: Evidence) -> Float[Tensor, "*batch"]:
        """Mean squared prediction error of pairs' differences, ``(*batch,)``, in squared units of f.

        Each pair beyond the border is predicted from all others; where there are few, each of the border. The border has
        been read by what is expected before, which praises it. Even orders of interaction, which Shapley values do not
        depend on, are not in it.
        """
        coalitions = (evidence.coalitions or border_coalitions(evidence)).first(MAX_POSTERIOR)
        prior = self.prior(evidence)
        posterior = posterior_of(prior, super().complete(prior, evidence).attributions, evidence)
        inside, known = judging_pairs(coalitions, evidence.players), coalitions.measured.unflatten(-1, (-1, 2)).all(-1)
        judged = torch.where(inside.any(-1, keepdim=True), inside, known)
        missed = torch.where(judged, posterior.left_out(), 0.0).double() * prior.scale.unsqueeze(-1)
        return missed.square().sum(-1) / judged.sum(-1).clamp(min=1)

    def prediction_error(
        self, evidence: Evidence, members: Bool[Tensor, "R P M"], differences: Float[Tensor, "R P"]
    ) -> Float[Tensor, " R"]:
        """Mean squared error of pairs' differences that rows ``(R, M)`` let expect, ``(R,)``, in squared units of f."""
        prior = self.prior(evidence)
        posterior = posterior_of(prior, super().complete(prior, evidence).attributions, evidence)
        expected = posterior.differences(members) * prior.scale.unsqueeze(-1)
        return (expected - differences).double().square().mean(-1)

    def telling_pairs(
        self, evidence: Evidence, members: Bool[Tensor, "R P M"], free: Bool[Tensor, "R P"], count: int, n_outputs: int
    ) -> Int64[Tensor, "R count"]:
        """:func:`captum_meta.nn.refinement.telling_pairs` for rows ``(R, M)``."""
        prior = self.prior(evidence)
        return telling_pairs(
            prior, super().complete(prior, evidence).attributions, evidence, members, free, count, n_outputs
        )

    def error_numbers(
        self,
        prior: Prior,
        evidence: Evidence,
        attributions: Float[Tensor, "*batch M"],
        mean: Float[Tensor, "*batch M"],
        doubts: Doubts,
    ) -> tuple[Float[Tensor, "*batch M A"], Float[Tensor, "*batch R"]]:
        """:func:`captum_meta.nn.error_head.numbers_of` of the posterior and of other answers.

        The hypercube posterior expects a squared error of its variance and of the distance from its own mean. The others (a
        committee: Seung, Opper and Sompolinsky 1992) are answers from the gradients alone, from half of the coalitions, for
        the negative of the model, and before coalitions were used.

        Args:
            prior, evidence, attributions: as for :meth:`estimate_error`.
            mean: ``(*batch, M)``, the answer before coalitions were used.
            doubts: of the posterior from this mean.
        """
        unit = prior.scale.unsqueeze(-1)
        expected = doubts.variance + (doubts.mean - attributions / unit).square()
        answers = [
            self(evidence.gradients_alone()).attributions,
            doubts.of_half * unit,
            doubts.opposite * unit,
            mean,
        ]
        first = (evidence.coalitions or border_coalitions(evidence)).first(MAX_POSTERIOR)
        seen = replace(evidence, coalitions=first)
        return numbers_of(prior, seen, attributions, expected, answers, doubts.late_surprises)


def _scaled(evidence: Evidence) -> tuple[Float[Tensor, "*batch M C"], Bool[Tensor, "*batch M C"], Float[Tensor, "*batch"]]:
    """Effects in units of the row's scale, 0 where not measured; where they are; the scale."""
    scale = row_scale(evidence)
    measured = evidence.measured & evidence.players.unsqueeze(-1)
    return torch.where(measured, evidence.effects / scale[..., None, None], 0.0), measured, scale


def _inputs(
    effects: Float[Tensor, "*batch M C"],
    measured: Bool[Tensor, "*batch M C"],
    evidence: Evidence,
    scale: Float[Tensor, "*batch"],
) -> tuple[Float[Tensor, "*batch M A"], Float[Tensor, "*batch R"]]:
    """Scale-free numbers of each player, ``(*batch, M, A)``, and of its row, ``(*batch, B)``."""
    players = evidence.players.unsqueeze(-1)
    total = evidence.total / scale
    halfway = measured[..., 1].any(-1)
    row = torch.stack(
        [
            torch.asinh(total),
            torch.asinh(total / evidence.n_players.clamp(min=1)),
            torch.asinh(effects[..., LEAVE_ONE_OUT].sum(-1)) - torch.asinh(total),
            torch.asinh(effects[..., ADD_ONE_IN].sum(-1)) - torch.asinh(total),
            torch.where(halfway, torch.asinh(evidence.curve[..., 1] / scale) * 2 - torch.asinh(total), 0.0),
            evidence.n_players.clamp(min=1).log().to(total) / 3,
        ],
        dim=-1,
    )
    means = torch.cat(
        [
            torch.asinh(effects.sum(-2)) - torch.asinh(total).unsqueeze(-1),
            masked_mean(effects.abs(), measured, -2),
            masked_mean(measured.to(effects), players, -2),
        ],
        dim=-1,
    )
    own = torch.cat([effects.clamp(-5, 5), torch.asinh(3 * effects), measured.to(effects)], dim=-1)
    return own, torch.cat([row, means], dim=-1)


def _known_error(evidence: Evidence) -> float | None:
    """0 where all coalitions were evaluated, NaN where no row's border was, or it is too large to be read, else None."""
    if evidence.coalitions is None and 2 * evidence.players.shape[-1] > MAX_POSTERIOR:
        return torch.nan
    coalitions = evidence.coalitions or border_coalitions(evidence)
    if is_complete(coalitions, evidence):
        return 0.0
    return None if bool(tells_the_border(coalitions, evidence).any()) else torch.nan


def _estimate(
    players: Float[Tensor, "*batch M A"],
    rows: Float[Tensor, "*batch R"],
    evidence: Evidence,
    attributions: Float[Tensor, "*batch M"],
) -> Float[Tensor, "*batch"]:
    """The shipped head's answer; infinite where nothing acts, NaN without the border, 0 where all is known."""
    head = shipped_error_head(attributions.device, attributions.dtype)
    estimate = head.log_bound(players, rows, evidence.players).exp()
    estimate = torch.where(attributions.any(-1), estimate, torch.inf)
    coalitions = evidence.coalitions or border_coalitions(evidence)
    estimate = torch.where(tells_the_border(coalitions, evidence), estimate, torch.nan)
    return torch.where(coalitions.pairs() >= all_pairs(evidence), 0.0, estimate)
