"""Surrogate stacking: the explained model itself is learned from the coalitions of the support rows."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import TypeVar

import torch
from torch import Tensor

from captum_meta.learners._caution import folds, within
from captum_meta.learners._kernel import alive
from captum_meta.learners._places import coordinates, nearness
from captum_meta.learners.deep_kernel import DeepKernelTransfer
from captum_meta.nn import Prior
from captum_meta.nn.distillation import learn
from captum_meta.nn.encoders import effect_sizes, fit_players
from captum_meta.nn.lesson import Lesson
from captum_meta.nn.surrogate import Committee, SurrogateGame
from captum_meta.types import Coalitions, Evidence, Explanations, Reading, Record, State

_MEMBERS = 4
_EVALUATIONS, _MAX_PLAYERS = 16, 64
_STEPS = 8
"""Of the shares from 0 to 1 that are tried."""
_EVEN = 0.1
"""How much even shares are preferred, against the zero-shot error."""
_REACH = 2.0
"""Longest correction, in units of the row's scale, against the longest of a left-out row."""
_PREFIX = "network "
_R = TypeVar("_R", bound=Record)


class SurrogateStacking(DeepKernelTransfer):
    r"""A small network learns the explained model from all coalitions that were evaluated to explain the support rows.

    Explaining a row well takes hundreds of evaluations of the model, and its Shapley values keep little of what these tell.
    Four networks h, each without a quarter of the support rows, are fitted to the worths of their coalitions (distillation:
    Hinton, Vinyals and Dean 2015) and to the model's slopes there (Sobolev training: Czarnecki et al. 2017). Then three
    answers are known for a row: that of :class:`DeepKernelTransfer`; the Shapley values of h, which cost no evaluation; and
    these with the zero-shot explanation of what h misses,

    .. math:: \phi = w_1 \phi^\text{kernel}(e) + w_2 \phi(h) + w_3 \big[\phi(h) + \phi^0(e - e_h)\big]

    where e is the row's evidence and :math:`e_h` that of h. The shares w (stacked generalisation: Wolpert 1992), at least 0
    and together 1, surely leave least of the support rows' errors, each row explained by the network and the kernel that
    have not seen it. Far from the support rows the networks' shares fade, twice as fast as the kernel's correction does. No
    row is corrected, in units of its scale, by more than twice what the left-out row was that was corrected most. Coalitions
    inside the border refine the answer as they refine any.

    Without coalitions of support rows, of rows with more than 64 players or an output that no support row has, and before
    :meth:`adapt`, this is :class:`DeepKernelTransfer`. The networks read all elements of players that have up to 64, and 32
    random sums of larger ones, whose slopes they are not told.

    Args:
        explainer, encoder, shared, own, caution, features: as in :class:`DeepKernelTransfer`.
    """

    @property
    def reading(self) -> Reading:
        return Reading(_EVALUATIONS, _MAX_PLAYERS)

    def adapt(self, support: Explanations) -> State:
        kernel = super().adapt(support)
        evidence = support.evidence
        n_rows, n_players = support.attributions.shape[-2:]
        if evidence.coalitions is None or evidence.elements is None or n_rows < 2 or n_players > _MAX_PLAYERS:
            return kernel
        plain, left_out = replace(evidence, coalitions=None), _left_out(support)
        state = {**kernel, **self.distil(support)}
        unseen = self._left_out_kernel(replace(support, evidence=plain, labels=None), left_out)
        alone = plain.map(lambda rows: rows.unsqueeze(left_out.dim() - 1))
        networks = self._answers(self._game(_each_row_s_own(state, left_out), alone), alone)
        answers = torch.stack([unseen, *(answer.squeeze(-2) for answer in networks)], dim=-1)
        zero_shot = self.explainer.prior(plain)
        start = self.explainer.complete(zero_shot, plain).attributions
        shares = _shares(answers, support.attributions, start, self.caution).to(start)
        corrections = (answers * shares[..., None, None, :]).sum(-1) - start
        reach = _REACH * (corrections.norm(dim=-1) / zero_shot.scale).amax(-1)
        return {**state, "shares": shares, "relative reach": reach}

    def distil(self, support: Explanations) -> State:
        """The networks that have learned the model from the coalitions of ``support``, and what they read rows by."""
        targets = _targets(support.evidence)
        outputs = targets.unique().expand(*targets.shape[:-1], -1)
        state = {"outputs": outputs, **_spread(support.evidence)}
        return {**state, **self._networks(support, _left_out(support), outputs, state)}

    def distilled_values(self, state: State, evidence: Evidence) -> Tensor:
        """Shapley values ``(*batch, N, M)`` of the networks of :meth:`distil`, for these rows."""
        return self._game(state, evidence).shapley_values()

    def prior(self, state: State, evidence: Evidence) -> Prior:
        if "shares" not in state or evidence.elements is None or evidence.players.shape[-1] > _MAX_PLAYERS:
            return super().prior(state, evidence)
        plain = replace(evidence, coalitions=None)
        zero_shot = self.explainer.prior(plain)
        prior = self.corrected(zero_shot, state, plain)
        z = coordinates(zero_shot, plain, state)
        _, known = _heads(plain, state["outputs"])
        trust = nearness(z, plain.players, state).square() * known.unsqueeze(-1)
        answers = torch.stack(self._answers(self._game(state, plain), plain), dim=-1)
        beyond = answers - prior.attributions.unsqueeze(-1)
        correction = (beyond * state["shares"][..., None, None, 1:]).sum(-1)
        correction = torch.where(alive(evidence), trust * correction, 0.0) + prior.attributions - zero_shot.attributions
        unit = zero_shot.scale.unsqueeze(-1)
        correction = unit * within(correction / unit, state["relative reach"])
        return replace(prior, attributions=zero_shot.attributions + correction)

    def _answers(self, game: SurrogateGame, plain: Evidence) -> tuple[Tensor, Tensor]:
        """The network's Shapley values, and these with what the zero-shot explainer says of the rest."""
        values = game.shapley_values().to(plain.effects)
        return values, values + self.explainer(game.taken_from(plain)).attributions

    def _networks(self, support: Explanations, left_out: Tensor, outputs: Tensor, statistics: State) -> State:
        """Weights ``(*batch, F, ...)`` by prefixed names, and the unit of their answers ``(*batch,)``."""
        evidence = support.evidence
        coalitions = evidence.coalitions
        assert coalitions is not None
        worths, measured = coalitions.worths, coalitions.measured & coalitions.worths.isfinite()
        worths = torch.where(measured, worths, 0.0)
        unit = (worths.square().sum((-2, -1)) / measured.sum((-2, -1)).clamp(min=1)).sqrt()
        unit = unit.clamp(min=torch.finfo(unit.dtype).tiny)
        inputs, baselines = _elements(evidence, statistics)
        heads, _ = _heads(evidence, outputs)
        lesson = Lesson(
            members=coalitions.members,
            inputs=inputs,
            baselines=baselines,
            worths=worths / unit[..., None, None],
            known=measured.unsqueeze(-3) & ~left_out.unsqueeze(-1),
            heads=heads,
            ranks=support.attributions.square().sum(-2).argsort(-1, descending=True).argsort(-1),
            slopes=_scaled_slopes(coalitions, statistics, unit),
        )
        weights = self.learned(lesson, outputs.shape[-1])
        return {"unit of worths": unit, **{_PREFIX + name: value for name, value in weights.items()}}

    def learned(self, lesson: Lesson, n_heads: int) -> State:
        """Weights of networks with so many outputs, ``(*batch, F, ...)``."""
        return learn(lesson, n_heads)

    def _left_out_kernel(self, support: Explanations, left_out: Tensor) -> Tensor:
        """Kernel's answers ``(*batch, K, M)`` for each row, fitted without its fold."""
        answers = torch.zeros_like(support.attributions)
        for fold in left_out.unbind(-2):
            order = fold.to(torch.uint8).argsort(dim=-1, stable=True)
            count = int(fold[(0,) * (fold.dim() - 1)].sum())
            others, these = order[..., :-count], order[..., -count:]
            state = super().adapt(_rows(support, others))
            asked = _rows(support, these).evidence
            found = self.explainer.complete(super().prior(state, asked), asked).attributions
            answers = answers.scatter(-2, these.unsqueeze(-1).expand_as(found), found)
        return answers

    def _game(self, state: State, evidence: Evidence) -> SurrogateGame:
        weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        inputs, baselines = _elements(evidence, state)
        enter = fit_players(weights["enter"], inputs.shape[-2], dim=-3)
        weights["enter"] = fit_players(enter, inputs.shape[-1], dim=-2)
        members, n_rows = enter.shape[-4], inputs.shape[-3]
        votes = enter.new_full((*enter.shape[:-3], n_rows), 1 / members)
        heads, _ = _heads(evidence, state["outputs"])
        return Committee(weights, votes, heads, state["unit of worths"]).game(inputs, baselines)


def _left_out(support: Explanations) -> Tensor:
    """The support rows ``(*batch, F, K)`` that each network does not see."""
    return folds(support.attributions.square().sum(-1), _MEMBERS)


def _each_row_s_own(state: State, left_out: Tensor) -> State:
    """The state ``(*batch, K, ...)`` of each support row as a task of its own, with the one network that has not seen it."""
    fold, dim = left_out.to(torch.uint8).argmax(-2), left_out.dim() - 2

    def own(name: str, value: Tensor) -> Tensor:
        if not name.startswith(_PREFIX):
            return value.unsqueeze(dim)
        index = fold.reshape(*fold.shape, *[1] * (value.dim() - fold.dim()))
        return value.gather(dim, index.expand(*fold.shape, *value.shape[fold.dim() :])).unsqueeze(dim + 1)

    return {name: own(name, value) for name, value in state.items()}


def _spread(evidence: Evidence) -> State:
    """Mean and deviation of the elements over the support rows and their baselines, ``(*batch, M, D)``."""
    assert evidence.elements is not None
    both = torch.cat(evidence.elements.to(evidence.effects).unbind(-1), dim=-3)
    return {"element mean": both.mean(-3), "element deviation": both.std(-3)}


def _elements(evidence: Evidence, statistics: State) -> tuple[Tensor, Tensor]:
    """Inputs and baselines ``(*batch, N, M, D)`` in units of the support rows; equal for players without any effect."""
    assert evidence.elements is not None
    elements = evidence.elements.to(evidence.effects)
    n_players, n_elements = elements.shape[-3:-1]
    mean, deviation = (
        fit_players(fit_players(statistics[name], n_players, dim=-2), n_elements)[..., None, :, :, None]
        for name in ("element mean", "element deviation")
    )
    scaled = torch.where(deviation > 0, (elements - mean) / torch.where(deviation > 0, deviation, 1.0), 0.0)
    inputs, baselines = scaled.clamp(-5, 5).unbind(-1)
    return torch.where(effect_sizes(evidence).unsqueeze(-1) > 0, inputs, baselines), baselines


def _scaled_slopes(coalitions: Coalitions, statistics: State, unit: Tensor) -> Tensor | None:
    """Derivatives ``(*batch, K, S, M, D)`` of the worths by elements, both in the networks' units."""
    if coalitions.slopes is None:
        return None
    deviation = statistics["element deviation"][..., None, None, :, :]
    return (coalitions.slopes * deviation / unit[..., None, None, None, None]).nan_to_num(0.0, 0.0, 0.0)


def _targets(evidence: Evidence) -> Tensor:
    if evidence.targets is None:
        return torch.zeros_like(evidence.total, dtype=torch.long)
    return evidence.targets


def _heads(evidence: Evidence, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the networks' outputs each row means, ``(*batch, N)``, and whether there is one."""
    same = _targets(evidence).unsqueeze(-1) == outputs.unsqueeze(-2)
    return same.to(torch.uint8).argmax(-1), same.any(-1)


def _rows(explanations: _R, index: Tensor) -> _R:
    """Rows ``(*batch, k)`` of ``(*batch, K, ...)``."""
    dim = index.dim() - 1

    def chosen(tensor: Tensor) -> Tensor:
        tail = tensor.shape[dim + 1 :]
        return tensor.gather(dim, index.reshape(*index.shape, *[1] * len(tail)).expand(*index.shape, *tail))

    return explanations.map(chosen)


def _shares(answers: Tensor, truth: Tensor, start: Tensor, caution: float) -> Tensor:
    """Shares ``(*batch, 3)`` with which left-out answers ``(*batch, K, M, 3)`` surely err least.

    Of what they gain on the first alone ``caution`` standard errors are taken off; even shares are a little preferred.
    """
    grid = _simplex().to(answers)
    errors = ((answers @ grid.mT) - truth.unsqueeze(-1)).square().sum(-2)
    gains = errors[..., :1] - errors
    sure = gains.sum(-2) - caution * gains.std(-2) * gains.shape[-2] ** 0.5
    zero_shot = (start - truth).square().sum((-2, -1))
    pull = _EVEN * zero_shot.unsqueeze(-1) * (grid - 1 / grid.shape[-1]).square().sum(-1)
    return grid[(sure - pull).nan_to_num(-torch.inf, -torch.inf).argmax(-1)]


@lru_cache(maxsize=1)
def _simplex() -> Tensor:
    """Triples of multiples of 1/8 that sum to 1, ``(45, 3)``; the first is (1, 0, 0)."""
    with torch.inference_mode(False):
        triples = [t for t in product(range(_STEPS, -1, -1), repeat=3) if sum(t) == _STEPS]
        return torch.tensor(triples, dtype=torch.float64) / _STEPS
