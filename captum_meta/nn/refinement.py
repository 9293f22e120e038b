"""Explanations refined by coalitions: exact values, or those that the posterior expects."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta.estimators import (
    CoalitionPairs,
    HypercubePosterior,
    HypercubePrior,
    kernel_shapley_values,
    likely_rates,
    shapley_values,
    telling_differences,
)
from captum_meta.nn.explainer import Prediction, Prior
from captum_meta.types import ADD_ONE_IN, LEAVE_ONE_OUT, Coalitions, Evidence, Record

_FEWEST_INSIDE = 4
"""Pairs beyond the border that a row is judged by."""
MAX_POSTERIOR = 2048
"""Most coalitions of the posterior, as its cost is cubic in them. Weighted least squares reads the rest."""
_AT_ONCE = 2**22
"""Bytes of covariances computed at once."""
_LEAST_STRENGTH = 1e-6
_FEW_OF_ALL = 8
_MAX_EXACT = 20


def judging_pairs(coalitions: Coalitions, players: Bool[Tensor, "*batch M"]) -> Bool[Tensor, "*batch P"]:
    """Pairs beyond the border, which only the posterior reads, ``(*batch, P)``: those of no row that has few.

    >>> members = torch.zeros(1, 10, 6).bool()
    >>> for pair, others in enumerate(([], [1], [2], [3], [4])):
    ...     members[0, 2 * pair, [0, *others]] = True
    >>> members[:, 1::2] = ~members[:, ::2]
    >>> measured = torch.ones(1, 10).bool()
    >>> judging_pairs(Coalitions(members, torch.zeros(1, 10), measured), torch.ones(1, 6).bool()).tolist()
    [[False, True, True, True, True]]
    >>> measured[0, 3] = False
    >>> judging_pairs(Coalitions(members, torch.zeros(1, 10), measured), torch.ones(1, 6).bool()).any().item()
    False
    """
    sizes, known = coalitions.members[..., ::2, :].sum(-1), coalitions.measured.unflatten(-1, (-1, 2)).all(-1)
    inside = known & (sizes > 1) & (sizes < players.sum(-1, keepdim=True) - 1)
    return inside & (inside.sum(-1, keepdim=True) >= _FEWEST_INSIDE)


def refine(posterior: HypercubePosterior, prior: Prior, before: Prediction, evidence: Evidence) -> Float[Tensor, "*batch M"]:
    """Shapley values given all coalitions evaluated, but not all there are; ``before`` where none has 2 to M - 2 players.

    What coalitions beyond the first 2,048 say differently from what these let expect is a game of its own, whose Shapley
    values KernelSHAP adds.
    """
    unit, coalitions = prior.scale.unsqueeze(-1), evidence.coalitions
    assert coalitions is not None
    more = coalitions.beyond_border(evidence.players).unsqueeze(-1)
    values = torch.where(more, posterior.shapley_values() * unit, before.attributions)
    if coalitions.members.shape[-2] <= MAX_POSTERIOR:
        return values
    halves = coalitions.members[..., ::2, :].split(MAX_POSTERIOR // 2, dim=-2)
    expected = torch.cat([posterior.differences(members) for members in halves], dim=-1) * unit
    seen = coalitions.worths[..., ::2] - coalitions.worths[..., 1::2]
    missed = (seen - expected).to(seen.dtype).unsqueeze(-1) / 2
    worths = torch.cat([missed, -missed], dim=-1).flatten(-2)
    nothing = torch.zeros_like(values)
    known = (coalitions.members, worths, coalitions.measured, evidence.players, torch.zeros_like(evidence.total))
    return values + kernel_shapley_values(*known, nothing, nothing + _LEAST_STRENGTH)


def is_complete(coalitions: Coalitions, evidence: Evidence) -> bool:
    """Whether all coalitions of all rows are known."""
    n_players = evidence.players.shape[-1]
    if n_players > _MAX_EXACT or coalitions.members.shape[-2] != 2**n_players - 2:
        return False
    return bool(evidence.players.all() and coalitions.measured.all())


def posterior_of(prior: Prior, mean: Float[Tensor, "*batch M"], evidence: Evidence) -> HypercubePosterior:
    """The posterior in units of the row's scale, from the first pairs of coalitions; its variance needs double precision."""
    return HypercubePosterior(*_seen_and_expected(prior, mean, evidence), torch.float64)


def telling_pairs(
    prior: Prior,
    mean: Float[Tensor, "R M"],
    evidence: Evidence,
    members: Bool[Tensor, "R P M"],
    free: Bool[Tensor, "R P"],
    count: int,
    n_outputs: int,
) -> Int64[Tensor, "R count"]:
    """Of the coalitions ``members``, where ``free``, those that tell most about the Shapley values, with their complements.

    The outputs of a row, side by side, have the same ones.
    """
    pairs, expected = _seen_and_expected(prior, mean, evidence)
    likely = expected.to(dtype=torch.float64).among(evidence.players)
    seen = pairs.to(dtype=torch.float64).with_everyone().signs()
    candidates = torch.where(evidence.players.unsqueeze(1), members.double() * 2 - 1, 0.0)
    return telling_differences(likely, seen, candidates, free, count, n_outputs)


def refined(prior: Prior, before: Prediction, evidence: Evidence, dtype: torch.dtype) -> Float[Tensor, "*batch M"]:
    """:func:`refine` by a posterior in this precision."""
    parts = _posteriors(prior, before, evidence, dtype)
    return torch.cat([refine(posterior, prior[rows], before[rows], evidence[rows]) for rows, posterior in parts])


@dataclass(frozen=True)
class Doubts(Record):
    """Quantities of a posterior beside the Shapley values; all but ``answer`` in units of the row's scale.

    Attributes:
        answer: ``(*batch, M)``, :func:`refine` by this posterior, in units of the output.
        opposite: ``(*batch, M)``, the mean under the prior of the negative model.
        mean, variance: ``(*batch, M)``, of each Shapley value.
        of_half: ``(*batch, M)``, the mean from half of the pairs.
        late_surprises: ``(*batch, 2)``.
    """

    answer: Float[Tensor, "*batch M"]
    opposite: Float[Tensor, "*batch M"]
    mean: Float[Tensor, "*batch M"]
    variance: Float[Tensor, "*batch M"]
    of_half: Float[Tensor, "*batch M"]
    late_surprises: Float[Tensor, "*batch 2"]


def doubts_of(prior: Prior, before: Prediction, evidence: Evidence, opposite: Float[Tensor, "*batch M"]) -> Doubts:
    """Of posteriors in double precision; ``opposite (*batch, M)`` is expected of the negative, in units of the output."""
    opposite, found = opposite / prior.scale.unsqueeze(-1), []
    for rows, posterior in _posteriors(prior, before, evidence, torch.float64):
        if evidence.coalitions is None:
            answers = before.attributions[rows], opposite[rows]
        else:
            answer = refine(posterior, prior[rows], before[rows], evidence[rows])
            answers = answer, posterior.shapley_values_from(opposite[rows])
        found.append(
            Doubts(
                *answers,
                mean=posterior.shapley_values(),
                variance=posterior.shapley_variance(),
                of_half=posterior.shapley_values_of_half(),
                late_surprises=posterior.late_surprises(),
            )
        )
    return Doubts.concatenate(found)


def _posteriors(
    prior: Prior, before: Prediction, evidence: Evidence, dtype: torch.dtype
) -> Iterator[tuple[slice, HypercubePosterior]]:
    """Posteriors of some rows ``(N, M)`` after others, as their matrices are large, and of which rows they are."""
    pairs, expected = _seen_and_expected(prior, before.attributions, evidence)
    n_rows, n_pairs = len(evidence.total), pairs.members.shape[-2] + 1
    most = _AT_ONCE // (n_pairs**2 * dtype.itemsize)
    step = max(1, most) if evidence.total.dim() == 1 else n_rows
    for rows in (slice(first, first + step) for first in range(0, n_rows, step)):
        yield rows, HypercubePosterior(pairs[rows], expected[rows], dtype)


def _seen_and_expected(
    prior: Prior, mean: Float[Tensor, "*batch M"], evidence: Evidence
) -> tuple[CoalitionPairs, HypercubePrior]:
    """The first pairs of coalitions, and their prior with the rates of greatest likelihood."""
    coalitions = (evidence.coalitions or border_coalitions(evidence)).first(MAX_POSTERIOR)
    assert prior.additive is not None and prior.rates is not None
    unit = prior.scale.unsqueeze(-1)
    gradients = torch.where(evidence.measured, evidence.effects, 0.0)[..., :LEAVE_ONE_OUT]
    directions = torch.cat([gradients, mean.unsqueeze(-1)], dim=-1).mT / unit.unsqueeze(-1)
    worths, measured = coalitions.worths.unflatten(-1, (-1, 2)), coalitions.measured.unflatten(-1, (-1, 2))
    pairs = CoalitionPairs(
        coalitions.members[..., ::2, :],
        (worths[..., 0] - worths[..., 1]) / unit,
        measured.all(-1),
        evidence.players,
        evidence.total / prior.scale,
    )
    expected = HypercubePrior(mean / unit, prior.additive, prior.rates, directions)
    return pairs, likely_rates(pairs, expected)


def precision(coalitions: Coalitions, evidence: Evidence) -> torch.dtype:
    """Double where an eighth or more of a row's coalitions may be known, as little but rounding is then unknown."""
    few = bool((_FEW_OF_ALL * coalitions.members.shape[-2] <= evidence.n_players.double().exp2()).all())
    return evidence.total.dtype if few else torch.float64


def border_coalitions(evidence: Evidence) -> Coalitions:
    """Pairs of the coalitions of one player and of all others, read back from their effects."""
    everyone = evidence.players.unsqueeze(-2)
    singles = torch.eye(evidence.players.shape[-1], dtype=torch.bool, device=everyone.device) & everyone
    without = evidence.total.unsqueeze(-1) - evidence.effects[..., LEAVE_ONE_OUT]
    known = evidence.measured & evidence.players.unsqueeze(-1)
    return Coalitions(
        torch.stack([singles, everyone & ~singles], dim=-2).flatten(-3, -2),
        torch.stack([evidence.effects[..., ADD_ONE_IN], without], dim=-1).flatten(-2),
        known[..., [ADD_ONE_IN, LEAVE_ONE_OUT]].flatten(-2),
    )


def exact(coalitions: Coalitions, total: Float[Tensor, "*batch"]) -> Float[Tensor, "*batch M"]:
    """Shapley values ``(*batch, M)`` from all coalitions."""
    n_players = coalitions.members.shape[-1]
    codes = (coalitions.members * 2 ** torch.arange(n_players, device=total.device)).sum(-1)
    worths = torch.zeros(*codes.shape[:-1], 2**n_players, dtype=torch.float64, device=total.device)
    worths = worths.scatter(-1, codes, coalitions.worths.double())
    worths[..., -1] = total
    return shapley_values(worths).to(total.dtype)


def tells_the_border(coalitions: Coalitions, evidence: Evidence) -> Bool[Tensor, "*batch"]:
    """Whether as many pairs as the border's were evaluated of a row, ``(*batch,)`` bool."""
    return coalitions.pairs() >= torch.minimum(evidence.n_players, all_pairs(evidence))


def all_pairs(evidence: Evidence) -> Float[Tensor, "*batch"]:
    """Number of pairs of each row."""
    return 2.0 ** (evidence.n_players - 1) - 1
