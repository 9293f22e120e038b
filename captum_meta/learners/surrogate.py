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
from captum_meta.nn.encoders import effect_sizes, fit_players, standardised
from captum_meta.nn.surrogate import Committee, SurrogateGame, learn
from captum_meta.types import Coalitions, Evidence, Explanations, State, _Rows

_MEMBERS = 4
_COALITIONS, _MAX_PLAYERS = 16, 64
_STEPS = 8
"""Of the shares from 0 to 1 that are tried."""
_EVEN = 0.1
"""How much even shares are preferred, against the zero-shot error."""
_REACH = 2.0
"""Longest correction, in units of the row's scale, against the longest of a left-out row."""
_PREFIX = "network "
_R = TypeVar("_R", bound=_Rows)


class SurrogateStacking(DeepKernelTransfer):
    r"""A small network learns the explained model from all coalitions that were evaluated to explain the support rows.

    Explaining a row well takes hundreds of evaluations of the model, and its Shapley values keep little of what these tell.
    Four networks h, each without a quarter of the support rows, are fitted to the worths of their coalitions (distillation:
    Hinton, Vinyals and Dean 2015). Then three answers are known for a row: that of :class:`DeepKernelTransfer`; the
    Shapley values of h, which cost no evaluation; and these with the zero-shot explanation of what h misses,

    .. math:: \phi = w_1 \phi^\text{kernel}(e) + w_2 \phi(h) + w_3 \big[\phi(h) + \phi^0(e - e_h)\big]

    where e is the row's evidence and :math:`e_h` that of h. The shares w (stacked generalisation: Wolpert 1992), at least 0
    and together 1, surely leave least of the support rows' errors, each row explained by the network and the kernel that
    have not seen it. Far from the support rows the networks' shares fade, twice as fast as the kernel's correction does. No
    row is corrected, in units of its scale, by more than twice what the left-out row was that was corrected most. Coalitions
    inside the border refine the answer as they refine any.

    Without coalitions of support rows, of rows with more than 64 players or an output that no support row has, and before
    :meth:`adapt`, this is :class:`DeepKernelTransfer`. A network reads one number of each player, the sum of its inputs.

    Args:
        explainer, encoder, shared, own, caution, features: as in :class:`DeepKernelTransfer`.
    """

    def support_coalitions(self, n_players: int) -> int:
        """16 a player, of up to 64 players."""
        return _COALITIONS * n_players if n_players <= _MAX_PLAYERS else 0

    def adapt(self, support: Explanations) -> State:
        kernel = super().adapt(support)
        evidence = support.evidence
        n_rows, n_players = support.attributions.shape[-2:]
        if evidence.coalitions is None or evidence.inputs is None or n_rows < 2 or n_players > _MAX_PLAYERS:
            return kernel
        plain = replace(evidence, coalitions=None)
        left_out = folds(support.attributions.square().sum(-1), _MEMBERS)
        targets = _targets(evidence)
        outputs = targets.unique().expand(*targets.shape[:-1], -1)
        state = {**kernel, "outputs": outputs, **self._networks(support, left_out, outputs, kernel)}
        unseen = self._left_out_kernel(replace(support, evidence=plain, labels=None), left_out)
        game = self._game(state, plain, votes=left_out.to(unseen))
        answers = torch.stack([unseen, *self._answers(game, plain)], dim=-1)
        zero_shot = self.explainer.prior(plain)
        start = self.explainer.complete(zero_shot, plain).attributions
        shares = _shares(answers, support.attributions, start, self.caution).to(start)
        corrections = (answers * shares[..., None, None, :]).sum(-1) - start
        reach = _REACH * (corrections.norm(dim=-1) / zero_shot.scale).amax(-1)
        return {**state, "shares": shares, "relative reach": reach}

    def prior(self, state: State, evidence: Evidence) -> Prior:
        if "shares" not in state or evidence.players.shape[-1] > _MAX_PLAYERS:
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
        members, worths, measured = _with_everyone(coalitions, evidence)
        inputs, baselines = _places(evidence, statistics)
        points = torch.where(members, inputs.unsqueeze(-2), baselines.unsqueeze(-2))
        count = measured.sum((-2, -1)).clamp(min=1)
        unit = (torch.where(measured, worths, 0.0).square().sum((-2, -1)) / count).sqrt()
        unit = unit.clamp(min=torch.finfo(unit.dtype).tiny)
        heads, _ = _heads(evidence, outputs)
        known = measured.unsqueeze(-3) & ~left_out.unsqueeze(-1)
        ranks = support.attributions.square().sum(-2).argsort(-1, descending=True).argsort(-1)
        scaled = worths / unit[..., None, None]
        weights = learn(points, baselines, scaled, known, heads, outputs.shape[-1], ranks)
        return {"unit of worths": unit, **{_PREFIX + name: value for name, value in weights.items()}}

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

    def _game(self, state: State, evidence: Evidence, votes: Tensor | None = None) -> SurrogateGame:
        weights = {name.removeprefix(_PREFIX): value for name, value in state.items() if name.startswith(_PREFIX)}
        n_players, n_rows = evidence.players.shape[-1], evidence.players.shape[-2]
        weights["enter"] = fit_players(weights["enter"], n_players, dim=-2)
        if votes is None:
            n_members = weights["enter"].shape[-3]
            votes = weights["enter"].new_full((*weights["enter"].shape[:-2], n_rows), 1 / n_members)
        heads, _ = _heads(evidence, state["outputs"])
        inputs, baselines = _places(evidence, state)
        return SurrogateGame(Committee(weights, votes, heads, state["unit of worths"]), inputs, baselines)


def _places(evidence: Evidence, statistics: State) -> tuple[Tensor, Tensor]:
    """Inputs and baselines ``(*batch, N, M)`` in units of the support rows; equal for players without any effect."""
    assert evidence.inputs is not None
    inputs, baselines = standardised(evidence.inputs.to(evidence.effects), evidence, statistics).clamp(-5, 5).unbind(-1)
    return torch.where(effect_sizes(evidence) > 0, inputs, baselines), baselines


def _targets(evidence: Evidence) -> Tensor:
    if evidence.targets is None:
        return torch.zeros_like(evidence.total, dtype=torch.long)
    return evidence.targets


def _heads(evidence: Evidence, outputs: Tensor) -> tuple[Tensor, Tensor]:
    """Which of the networks' outputs each row means, ``(*batch, N)``, and whether there is one."""
    same = _targets(evidence).unsqueeze(-1) == outputs.unsqueeze(-2)
    return same.to(torch.uint8).argmax(-1), same.any(-1)


def _with_everyone(coalitions: Coalitions, evidence: Evidence) -> tuple[Tensor, Tensor, Tensor]:
    """Members, worths and which of these are known, the coalition of all players among them."""
    members = torch.cat([coalitions.members, evidence.players.unsqueeze(-2)], dim=-2)
    worths = torch.cat([coalitions.worths, evidence.total.unsqueeze(-1)], dim=-1)
    measured = torch.cat([coalitions.measured, torch.ones_like(coalitions.measured[..., :1])], dim=-1)
    return members, worths.nan_to_num(0.0, 0.0, 0.0), measured & worths.isfinite()


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
