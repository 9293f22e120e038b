"""Surrogate stacking: the explained model itself is learned from the coalitions of the support rows."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captum_meta._numbers import at_least
from captum_meta.games import SurrogateGame
from captum_meta.learners._config import described_part, part_of
from captum_meta.learners._coordinates import coordinates
from captum_meta.learners._correction import folds, shares, within
from captum_meta.learners._elements import Elements, heads_of, in_units, scaled_gradients, targets_of
from captum_meta.learners._kernel import KernelRegression, KernelState, alive
from captum_meta.learners._relative import loss_against_zero_shot
from captum_meta.learners.base import MetaLearner
from captum_meta.losses import relative_errors
from captum_meta.nn import Distillation, Explainer, LearnedDescent, Prior
from captum_meta.nn.encoders import fit_players
from captum_meta.nn.lesson import Lesson
from captum_meta.nn.surrogate import Committee, Networks
from captum_meta.optim.evolution import evolved
from captum_meta.types import Evidence, Explanations, ExplanationTask, Reading, Record

_MEMBERS = 4
_EVALUATIONS, _MAX_PLAYERS = 16, 64
_REACH = 2.0
"""Longest correction over the longest of a left-out row, both in units of the row's scale."""
_FLOOR, _WORST = 3e-3, 10.0
"""Smallest and largest error of networks in the loss of their descent."""
_R = TypeVar("_R", bound=Record)


@dataclass(frozen=True)
class SurrogateState(Record):
    """Networks fitted to the explained model.

    Attributes:
        networks: their weights.
        unit: ``(*batch,)``, of their answers.
        outputs: ``(*batch, H)`` int64, indices of the model's outputs that theirs imitate.
        elements: the units of their inputs.
    """

    networks: Networks
    unit: Tensor
    outputs: Tensor
    elements: Elements


@dataclass(frozen=True)
class StackingState(Record):
    """The base's state and, where coalitions of the support rows are known, the networks.

    Attributes:
        base: the base's own state.
        surrogate: the networks, or None.
        shares: ``(*batch, 3)``, of the base, the networks, and these with the explanation of what they miss.
        reach: ``(*batch,)``, length of the longest correction, in units of the row's scale.
    """

    base: KernelState
    surrogate: SurrogateState | None = None
    shares: Tensor | None = None
    reach: Tensor | None = None


class Stacking(MetaLearner[StackingState]):
    r"""A small network learns the explained model from all coalitions that were evaluated to explain the support rows.

    Explaining a row well takes hundreds of evaluations of the model, and its Shapley values keep little of their content.
    Four networks h, each without a quarter of the support rows, are fitted to the worths of their coalitions (distillation:
    Hinton, Vinyals and Dean 2015) and to the model's gradients there (Sobolev training: Czarnecki et al. 2017). Then three
    answers are known for a row: that of the base; the Shapley values of h, which cost no evaluation; and these with the
    zero-shot explanation of what h misses,

    .. math:: \phi = w_1 \phi^\text{base}(e) + w_2 \phi(h) + w_3 \big[\phi(h) + \phi^0(e - e_h)\big]

    where e is the row's evidence and :math:`e_h` that of h. The shares w (stacked generalisation: Wolpert 1992) are at least
    0 and sum to 1. They are those of the smallest error on the support rows, by a lower confidence bound, where each row is
    explained by the network and the base that have not seen it. Far from the support rows the networks' shares fade, twice
    as fast as the base's correction does. In units of its scale, no row's correction is longer than twice the longest one of
    a left-out row. Coalitions inside the border refine the answer as they refine any.

    Without coalitions of support rows, of rows with more than 64 players or an output that no support row has, and before
    :meth:`adapt`, this is the base. The networks read all elements of players that have up to 64, and 32 random sums of
    larger ones, whose gradients they are not given.

    Args:
        base: a :class:`DeepKernelTransfer`, :class:`FeatureMAML` or :class:`KernelRidge`, whose explainer is this one's.
        surrogate: how the networks learn: a :class:`~captum_meta.nn.Distillation`, the default, or a
            :class:`~captum_meta.nn.LearnedDescent`.
        confidence: standard errors that are subtracted from the gain of the networks on left-out rows.
    """

    def __init__(
        self,
        base: KernelRegression,
        surrogate: Distillation | LearnedDescent | Mapping[str, Any] | None = None,
        confidence: float = 1.0,
    ) -> None:
        nn.Module.__init__(self)
        self.base, self.confidence = base, at_least("confidence", confidence, 0.0)
        built = part_of(surrogate) if isinstance(surrogate, Mapping) else surrogate
        self.surrogate: Distillation | LearnedDescent = built or Distillation()

    @property
    def explainer(self) -> Explainer:  # type: ignore[override]
        """The base's."""
        return self.base.explainer

    def arguments(self) -> dict[str, object]:
        return {"base": self.base, "surrogate": described_part("surrogate", self.surrogate), "confidence": self.confidence}

    @property
    def reading(self) -> Reading:
        return Reading(_EVALUATIONS, _MAX_PLAYERS)

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """The base's loss, as for the metric-based learners, plus the networks' errors for a learned descent.

        Each counts where it has parameters that are trained. Where backpropagation through the descent's steps was tried, it
        exploded: its gradient is estimated by evolution strategies.

        Raises:
            ValueError: if nothing but the descent is trained, and the support rows have no coalitions for the networks.
        """
        descent = [value for value in self.surrogate.parameters() if value.requires_grad]
        evidence, losses = tasks.support.evidence, []
        if any(value.requires_grad for value in self.base.parameters()):
            losses.append(loss_against_zero_shot(self, tasks))
        if descent and evidence.coalitions is not None and evidence.elements is not None:
            losses.append(evolved(lambda: self.log_errors(tasks), descent))
        if not losses:
            raise ValueError(
                "Only the descent of the networks is trained, which learn from coalitions and elements of the support rows, "
                "but the tasks have none: take captum_meta.tasks.DistillationTaskFamily with augment=False, and 2 support "
                "rows or more."
            )
        return sum(losses[1:], start=losses[0])

    def log_errors(self, tasks: ExplanationTask) -> Float[Tensor, " T"]:
        """Logarithms of the relative squared errors of the networks' Shapley values for the query rows, ``(T,)``."""
        query = tasks.query
        found = self.distilled_values(self.distil(tasks.support), query.evidence)
        errors = relative_errors(found, query.attributions, query.variance)
        return (errors.nan_to_num(_WORST, _WORST).clamp(max=_WORST) + _FLOOR).log()

    def adapt(self, support: Explanations) -> StackingState:
        base = self.base.adapt(support)
        evidence = support.evidence
        n_rows, n_players = support.attributions.shape[-2:]
        if evidence.coalitions is None or evidence.elements is None or n_rows < 2 or n_players > _MAX_PLAYERS:
            return StackingState(base)
        plain, left_out = evidence.without_coalitions(), _left_out(support)
        surrogate = self.distil(support)
        unseen = self._left_out_base(replace(support, evidence=plain, labels=None), left_out)
        alone = plain.map(lambda rows: rows.unsqueeze(left_out.dim() - 1))
        networks = self.surrogate_answers(self.surrogate_game(_each_row_s_own(surrogate, left_out), alone), alone)
        answers = torch.stack([unseen, *(answer.squeeze(-2) for answer in networks)], dim=-1)
        zero_shot = self.explainer.prior(plain)
        start = self.explainer.complete(zero_shot, plain).attributions
        found = shares(answers, support.attributions, start, self.confidence).to(start)
        corrections = (answers * found[..., None, None, :]).sum(-1) - start
        reach = _REACH * (corrections.norm(dim=-1) / zero_shot.scale).amax(-1)
        return StackingState(base, surrogate, found, reach)

    def distil(self, support: Explanations) -> SurrogateState:
        """Networks fitted to the coalitions of ``support``, and the units of their inputs."""
        evidence, left_out = support.evidence, _left_out(support)
        coalitions, targets = evidence.coalitions, targets_of(evidence)
        assert coalitions is not None
        outputs = targets.unique().expand(*targets.shape[:-1], -1)
        elements = Elements.of(evidence)
        measured = coalitions.measured & coalitions.worths.isfinite()
        worths = torch.where(measured, coalitions.worths, 0.0)
        unit = (worths.square().sum((-2, -1)) / measured.sum((-2, -1)).clamp(min=1)).sqrt()
        unit = unit.clamp(min=torch.finfo(unit.dtype).tiny)
        inputs, baselines = in_units(evidence, elements)
        heads, _ = heads_of(evidence, outputs)
        lesson = Lesson(
            members=coalitions.members,
            inputs=inputs,
            baselines=baselines,
            worths=worths / unit[..., None, None],
            known=measured.unsqueeze(-3) & ~left_out.unsqueeze(-1),
            heads=heads,
            ranks=support.attributions.square().sum(-2).argsort(-1, descending=True).argsort(-1),
            gradients=scaled_gradients(coalitions, elements, unit),
        )
        return SurrogateState(self.surrogate(lesson, outputs.shape[-1]), unit, outputs, elements)

    def distilled_values(self, state: SurrogateState, evidence: Evidence) -> Float[Tensor, "*batch N M"]:
        """Shapley values ``(*batch, N, M)`` of the networks of :meth:`distil`, for these rows."""
        return self.surrogate_game(state, evidence).shapley_values()

    def propose(self, state: StackingState | None, evidence: Evidence) -> Prior:
        if state is None:
            return self.base.propose(None, evidence)
        if state.surrogate is None or evidence.elements is None or evidence.players.shape[-1] > _MAX_PLAYERS:
            return self.base.propose(state.base, evidence)
        plain = evidence.without_coalitions()
        return self.corrected(self.explainer.prior(plain), state, plain)

    def corrected(self, prior: Prior, state: StackingState, evidence: Evidence) -> Prior:
        base = self.base.corrected(prior, state.base, evidence)
        surrogate = state.surrogate
        assert surrogate is not None and state.shares is not None and state.reach is not None
        z = coordinates(prior, evidence, state.base.statistics)
        _, known = heads_of(evidence, surrogate.outputs)
        trust = state.base.nearness(z, evidence.players).square() * known.unsqueeze(-1)
        answers = torch.stack(self.surrogate_answers(self.surrogate_game(surrogate, evidence), evidence), dim=-1)
        beyond = answers - base.attributions.unsqueeze(-1)
        correction = (beyond * state.shares[..., None, None, 1:]).sum(-1)
        correction = torch.where(alive(evidence), trust * correction, 0.0) + base.attributions - prior.attributions
        unit = prior.scale.unsqueeze(-1)
        correction = unit * within(correction / unit, state.reach)
        return replace(base, attributions=prior.attributions + correction)

    def surrogate_answers(self, game: SurrogateGame, plain: Evidence) -> tuple[Tensor, Tensor]:
        """The network's Shapley values, and these plus the zero-shot explanation of the rest."""
        values = game.shapley_values().to(plain.effects)
        return values, values + self.explainer(game.taken_from(plain)).attributions

    def _left_out_base(self, support: Explanations, left_out: Tensor) -> Tensor:
        """The base's answers ``(*batch, K, M)`` for each row, fitted without its fold."""
        answers = torch.zeros_like(support.attributions)
        for fold in left_out.unbind(-2):
            order = fold.to(torch.uint8).argsort(dim=-1, stable=True)
            count = int(fold[(0,) * (fold.dim() - 1)].sum())
            others, these = order[..., :-count], order[..., -count:]
            found = self.base.predict(self.base.adapt(_rows(support, others)), _rows(support, these).evidence)
            answers = answers.scatter(-2, these.unsqueeze(-1).expand_as(found), found)
        return answers

    def surrogate_game(self, state: SurrogateState, evidence: Evidence) -> SurrogateGame:
        inputs, baselines = in_units(evidence, state.elements)
        enter = fit_players(fit_players(state.networks.enter, inputs.shape[-2], dim=-3), inputs.shape[-1], dim=-2)
        votes = enter.new_full((*enter.shape[:-3], inputs.shape[-3]), 1 / enter.shape[-4])
        heads, _ = heads_of(evidence, state.outputs)
        return Committee(replace(state.networks, enter=enter), votes, heads, state.unit).game(inputs, baselines)


def _left_out(support: Explanations) -> Tensor:
    """The support rows ``(*batch, F, K)`` that each network is not fitted to."""
    return folds(support.attributions.square().sum(-1), _MEMBERS)


def _each_row_s_own(state: SurrogateState, left_out: Tensor) -> SurrogateState:
    """The state ``(*batch, K, ...)`` of each support row as a task of its own, with the network not fitted to it."""
    fold, dim = left_out.to(torch.uint8).argmax(-2), left_out.dim() - 2

    def own(value: Tensor) -> Tensor:
        index = fold.reshape(*fold.shape, *[1] * (value.dim() - fold.dim()))
        return value.gather(dim, index.expand(*fold.shape, *value.shape[fold.dim() :])).unsqueeze(dim + 1)

    return replace(state.map(lambda value: value.unsqueeze(dim)), networks=state.networks.map(own))


def _rows(explanations: _R, index: Tensor) -> _R:
    """Rows ``(*batch, k)`` of ``(*batch, K, ...)``."""
    dim = index.dim() - 1

    def chosen(tensor: Tensor) -> Tensor:
        tail = tensor.shape[dim + 1 :]
        return tensor.gather(dim, index.reshape(*index.shape, *[1] * len(tail)).expand(*index.shape, *tail))

    return explanations.map(chosen)
