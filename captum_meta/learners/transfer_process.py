"""A Gaussian process over the explained rows of earlier models and of this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta._numbers import at_least
from captum_meta.learners._correction import judge, within
from captum_meta.learners._kernel import alive
from captum_meta.learners.base import MetaLearner
from captum_meta.losses import relative_squared_error
from captum_meta.nn import Explainer, Prior
from captum_meta.nn.encoders import fit_players, five_effects
from captum_meta.types import Evidence, Explanations, ExplanationTask, Record

_NOISES = (0.01, 0.03, 0.1, 0.3)
_LENGTH, _TAIL = 1.5, 0.5
_FARTHEST = 2.0
"""Longest zero-shot answer of a row, in root mean square lengths of the support rows' attributions."""
_REACH = 2.0
"""How many times longer than any left-out row's a correction may be."""
_NUMBERS = 8
_PAST = ("past_numbers", "past_residual", "past_noise", "past_task")


@dataclass(frozen=True)
class ProcessState(Record):
    """A process fitted to earlier models' rows and this model's support rows, R together.

    Attributes:
        features: ``(*batch, R, F)``, of all rows.
        dual: ``(*batch, R, M)``, their coefficients.
        reach: ``(*batch,)``, length of the longest correction, in units of the output's ``unit``.
        deviation: ``(*batch, M)``, of the differences from the baseline.
        unit: ``(*batch,)``, root mean square of the support rows' attributions.
    """

    features: Tensor
    dual: Tensor
    reach: Tensor
    deviation: Tensor
    unit: Tensor


class TransferGaussianProcess(MetaLearner[ProcessState]):
    r"""A Gaussian process of what the zero-shot explanation misses, over the rows of all models seen so far.

    .. math:: \phi_{tn} = \phi^0_{tn} + u_t\, g_t(z_{tn}), \qquad
        k(g_{ti}(z), g_{t'i}(z')) = (\rho + (1 - \rho) [t = t']) \Big(1 + \frac{|z - z'|^2}{2 a \ell^2}\Big)^{-a}

    z are, of all players, the input's difference from the baseline, the zero-shot answer and the measured effects; u_t is
    the root mean square of the support rows' attributions. Players share the kernel and nothing else: player i is the same
    feature in every model, as where a model is retrained every day. With the tasks that :meth:`condition_on` gave this is
    transfer by one process over all tasks (Bonilla et al. 2008), in closed form; without any it knows this model's support
    rows alone. Time and memory of :meth:`adapt` grow with the cube and the square of the rows known.

    The level of the noise, and how much of the correction is applied, are judged by support rows left out one at a time:
    where earlier models mislead, little is. Zero-shot answers far longer than any row's are shortened.

    Args:
        explainer: the meta-trained explainer.
        transfer: rho, correlation of what is learned of two models.
        confidence: standard errors that are subtracted from the gain of a correction on left-out rows.
    """

    past_numbers: Tensor
    past_residual: Tensor
    past_noise: Tensor
    past_task: Tensor

    def __init__(self, explainer: Explainer, transfer: float = 0.98, confidence: float = 0.0) -> None:
        super().__init__(explainer)
        self.transfer, self.confidence = transfer, at_least("confidence", confidence, 0.0)
        self.register_buffer("past_numbers", torch.zeros(0, 1, _NUMBERS))
        self.register_buffer("past_residual", torch.zeros(0, 1))
        self.register_buffer("past_noise", torch.zeros(0))
        self.register_buffer("past_task", torch.zeros(0, dtype=torch.long))

    def arguments(self) -> dict[str, object]:
        return {"transfer": self.transfer, "confidence": self.confidence}

    @torch.no_grad()
    def condition_on(self, tasks: Sequence[Explanations]) -> None:
        width = max(task.attributions.shape[-1] for task in tasks)
        known = []
        for number, task in enumerate(tasks):
            unit = _unit(task)
            numbers, answer, _ = self._look(task.evidence, unit)
            residual, noise = _residual(task, answer, unit), _noise(task, unit)
            index = torch.full_like(noise, number, dtype=torch.long)
            known.append((fit_players(numbers, width, dim=-2), fit_players(residual, width), noise, index))
        for name, values in zip(_PAST, zip(*known, strict=True), strict=True):
            setattr(self, name, torch.cat([value.flatten(0, 1) for value in values]))

    def adapt(self, support: Explanations) -> ProcessState:
        self.require_rows(support)
        unit = _unit(support)
        numbers, answer, _ = self._look(support.evidence, unit)
        own, n_past = _residual(support, answer, unit), len(self.past_task)
        width = numbers.shape[-2]
        everything = self._with_past(fit_players(self.past_numbers, width, dim=-2), numbers)
        deviation = everything[..., 0].std(-2, correction=0).clamp(min=1e-12)
        features = _features(everything, deviation)
        task = self._with_past(self.past_task + 1, torch.zeros_like(own[..., 0], dtype=torch.long))
        noise = self._with_past(self.past_noise, _noise(support, unit)).double()
        residual = self._with_past(fit_players(self.past_residual, width), own).double()
        known = _kernel(features, features) * self._shared(task.unsqueeze(-1) == task.unsqueeze(-2))
        fits = [fit(known, residual, level + noise, n_past) for level in _NOISES]
        corrections = torch.stack([left_out for _, left_out in fits]) * alive(support.evidence)
        trust, _ = judge(corrections, residual[..., n_past:, :], self.confidence)
        dual = trust.of(torch.stack([dual for dual, _ in fits])) * self._shared(task == 0).unsqueeze(-1)
        return ProcessState(features, dual, _REACH * trust.reach, deviation, unit).to(dtype=answer.dtype)

    def propose(self, state: ProcessState | None, evidence: Evidence) -> Prior:
        if state is None:
            return self.explainer.prior(evidence)
        numbers, answer, prior = self._look(evidence, state.unit)
        width = state.dual.shape[-1]
        features = _features(fit_players(numbers, width, dim=-2), state.deviation)
        correction = (_kernel(features, state.features) @ state.dual.double()).to(answer)
        correction = within(fit_players(correction, answer.shape[-1]), state.reach) * state.unit[..., None, None]
        return replace(prior, attributions=answer + torch.where(alive(evidence), correction, 0.0))

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """That of the explainer, before any correction, which has nothing to learn."""
        predicted = self.predict(self.initial_state(), tasks.query.evidence)
        return relative_squared_error(predicted, tasks.query.attributions, tasks.query.variance)

    def _look(self, evidence: Evidence, unit: Tensor) -> tuple[Tensor, Tensor, Prior]:
        """Coordinates of the rows' players ``(*batch, N, M, 8)``, and the zero-shot answer, cut to its longest length."""
        evidence = evidence.without_coalitions()
        prior = self.explainer.prior(evidence)
        n_players = evidence.n_players.clamp(min=1)
        longest = _FARTHEST * unit * n_players.amax(-1).sqrt()
        answer = within(self.explainer.complete(prior, evidence).attributions, longest)
        delta = torch.zeros_like(answer)
        if evidence.inputs is not None:
            delta = (evidence.inputs[..., 0] - evidence.inputs[..., 1]).to(answer)
        total = (evidence.total / n_players.sqrt()).unsqueeze(-1).expand_as(answer)
        effects, measured = five_effects(evidence)
        effects = effects / measured.any(-2, keepdim=True).sum(-1, keepdim=True).clamp(min=1).sqrt()
        sizes = torch.asinh(2 * torch.cat([torch.stack([answer, total], -1), effects], -1) / unit[..., None, None, None])
        return torch.cat([delta.unsqueeze(-1), sizes], -1), answer, prior

    def _with_past(self, past: Tensor, own: Tensor) -> Tensor:
        """Earlier rows before those of each task ``(*batch, K, ...)``."""
        batch = own.shape[: own.dim() - past.dim()]
        return torch.cat([past.to(own).expand(*batch, *past.shape), own], own.dim() - past.dim())

    def _shared(self, same_model: Tensor) -> Tensor:
        return torch.where(same_model, 1.0, self.transfer).double()

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *arguments: Any) -> None:
        for name in _PAST:  # as many rows as were kept
            if prefix + name in state_dict:
                setattr(self, name, torch.empty_like(state_dict[prefix + name], device=getattr(self, name).device))
        super()._load_from_state_dict(state_dict, prefix, *arguments)


def _unit(rows: Explanations) -> Float[Tensor, "*batch"]:
    """Root mean square attribution, ``(*batch,)``; 1 where there is none."""
    players = rows.evidence.players.sum((-2, -1)).clamp(min=1)
    unit = (rows.attributions.square().sum((-2, -1)) / players).sqrt()
    return torch.where(unit > torch.finfo(unit.dtype).tiny ** 0.5, unit, 1.0)


def _residual(rows: Explanations, answer: Tensor, unit: Tensor) -> Tensor:
    return torch.where(rows.evidence.players, rows.attributions - answer, 0.0) / unit[..., None, None]


def _noise(rows: Explanations, unit: Tensor) -> Tensor:
    """Mean variance of a row's labels, ``(*batch, N)``, without units."""
    if rows.variance is None:
        return torch.zeros_like(rows.evidence.total)
    return rows.variance.mean(-1) / unit.unsqueeze(-1).square()


def _features(numbers: Tensor, deviation: Tensor) -> Tensor:
    """``(*batch, N, F)``, whose squared distances are means over players."""
    delta = (numbers[..., :1] / deviation[..., None, :, None]).clamp(-5, 5)
    return torch.cat([delta, numbers[..., 1:]], -1).flatten(-2) / numbers.shape[-2] ** 0.5


def _kernel(one: Tensor, other: Tensor) -> Tensor:
    """Rational quadratic, in double precision."""
    distances = torch.cdist(one.double(), other.double()).square()
    return (1 + distances / (2 * _TAIL * _LENGTH**2)) ** -_TAIL


def fit(known: Tensor, residual: Tensor, noise: Tensor, n_past: int) -> tuple[Tensor, Tensor]:
    """Dual coefficients of all rows, and corrections of this task's rows, each fitted without the row."""
    own = residual.shape[-2] - n_past
    one_each = torch.eye(residual.shape[-2], dtype=residual.dtype, device=residual.device)[:, n_past:]
    factor = torch.linalg.cholesky(known + torch.diag_embed(noise))
    solved = torch.cholesky_solve(torch.cat([residual, one_each.expand(*residual.shape[:-1], own)], -1), factor)
    dual, columns = solved[..., : residual.shape[-1]], solved[..., n_past:, residual.shape[-1] :]
    diagonal = columns.diagonal(dim1=-2, dim2=-1).unsqueeze(-1)
    return dual, residual[..., n_past:, :] - dual[..., n_past:, :] / diagonal
