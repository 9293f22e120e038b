"""Explains rows with growing effort: the method's own budget, doubled until a row needs no more."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from captum_meta._numbers import TINY
from captum_meta.attr._calls import Call, Tensors, parts_of
from captum_meta.attr._frontend import of_inputs
from captum_meta.attr._shapley import ShapleyFrontend
from captum_meta.attr.kernel_shap import MetaKernelShap
from captum_meta.evidence.shapley import BORDER_PLAYERS
from captum_meta.types import Evidence

DOUBLINGS = 3
_MOST_COALITIONS = 2048
"""Up to this budget, its coalitions are the first ones of any larger budget."""


@dataclass(frozen=True)
class Answer:
    """A method's answer for R rows.

    Attributes:
        parts: attributions, for each of their tensors ``(R, *shape)``.
        signals: ``(R, S)`` float64, logarithms of lengths in units of the output that tell of the error, the best first; NaN
            and infinities where unknown. The second is that of the attributions themselves.
        form: an answer in the form of the method's: a tensor, a tuple or a list.
    """

    parts: Tensors
    signals: Tensor
    form: Any


Visit = Callable[[int, Tensor, Answer], Tensor]
"""From the level, the rows' indices ``(R,)`` and their answers to the rows ``(R,)`` bool that need no further level."""


def climb(call: Call, visit: Visit, only_first: bool = False) -> None:
    """Explain all rows, then those that ``visit`` does not stop, with more effort, until the last level.

    Our Shapley methods add coalitions to those already evaluated; others are called again.
    """
    rounds = _shapley_budgets(call)
    if rounds is not None:
        return _climb_by_coalitions(call, visit, *rounds, only_first)
    name, number = _budget(call)
    efforts: list[dict[str, Any]] = [{}]
    if name is not None and number and not only_first:
        efforts += [{name: number * 2**doubling} for doubling in range(1, DOUBLINGS + 1)]
    rows = torch.arange(len(call), device=call.device)
    for level, effort in enumerate(efforts):
        answer = _answer(call, rows, {**call.further, **effort}, name, number * 2**level)
        rows = rows[~visit(level, rows, answer)]
        if not len(rows):
            return


def _shapley_budgets(call: Call) -> tuple[Tensor, int] | None:
    """Coalitions per row in the first round, and the budget of all rounds in the method's own unit.

    None for other methods, and for Shapley front ends whose budget is not in coalitions.
    """
    count = call.further.get("n_samples")
    if not isinstance(call.method, ShapleyFrontend) or call.further.keys() - {"n_samples", "seed", "perturbations_per_eval"}:
        return None
    own = call.game.players.mask.sum(1)
    if isinstance(call.method, MetaKernelShap):
        if count is None and call.game.players.count <= BORDER_PLAYERS:
            return 2 * own, 2
        return (torch.full_like(own, count), count) if count else None
    return (count * own, count) if count else None


def _climb_by_coalitions(call: Call, visit: Visit, first: Tensor, count: int, only_first: bool) -> None:
    method, game = call.method, call.game
    assert isinstance(method, ShapleyFrontend)
    limit = call.further.get("perturbations_per_eval")
    if limit is not None:
        game.evaluation.max_rows = limit * len(call)
    per_player = not isinstance(method, MetaKernelShap) or call.further.get("n_samples") is None
    largest = _MOST_COALITIONS // (game.players.count if per_player else 1)
    most = count if only_first else max(count, min(count * 2**DOUBLINGS, largest))
    levels, form = iter(range(DOUBLINGS + 1)), call.inputs if call.is_tuple else call.inputs[0]

    def accept(rows: Tensor, evidence: Evidence, values: Tensor, estimates: Tensor) -> Tensor:
        assert len(values) == len(rows), "The model has several outputs per row: pass target= to select one."
        parts = of_inputs(values, game, game.players.rows(rows))
        signals = torch.cat([_lengths(values.double(), estimates.double()), method._error_signals(evidence, values)], dim=1)
        return visit(next(levels), rows, Answer(parts, signals, form))

    plan = method._plan(most, int(call.further.get("seed", 0)), per_player=per_player)
    method._predict_in_rounds(game, plan, first, accept)


def _lengths(values: Tensor, estimates: Tensor) -> Tensor:
    """``(R, 2)``: logarithms of the estimated error and of the attributions' length."""
    size = values.norm(dim=1)
    return torch.stack([estimates.clamp(min=0).sqrt() * size, size], dim=1).clamp(min=TINY).log()


def _budget(call: Call) -> tuple[str | None, int]:
    """The argument that is the method's budget, and its value: that of the call, or the default."""
    parameters = call.parameters
    for name in ("n_steps", "n_samples"):
        if name in parameters:
            number = call.further.get(name, parameters[name].default)
            return (name, number) if isinstance(number, int) else (None, 0)
    return None, 0


def _answer(call: Call, rows: Tensor, further: dict[str, Any], name: str | None, number: int) -> Answer:
    """One call of the method, and a signal of its error: its own estimate, or an answer of half the effort."""
    some = call if call.together or len(rows) == len(call) else call.take(rows)
    estimated = "return_error_estimate" in call.parameters and not _measures_gradients_alone(call)
    found = some.explain(call.method, **further, **({"return_error_estimate": True} if estimated else {}))
    form = found[0] if estimated else found
    parts = parts_of(form)
    values, gap = some.values(parts), _gap(some, parts).unsqueeze(1)
    error = found[-1].detach().double().reshape(len(some)).clamp(min=0).sqrt() * values.norm(dim=1) if estimated else None
    if error is None and name is not None and number > 1:
        halved = some.explain(call.method, **{**further, name: number // 2})
        error = (some.values(parts_of(halved)) - values).norm(dim=1)
    first = gap if error is None else error.unsqueeze(1)
    signals = torch.cat([first, values.norm(dim=1, keepdim=True), gap], dim=1).clamp(min=TINY).log()
    if some is call:
        return Answer(tuple(part[rows] for part in parts), signals[rows], form)
    return Answer(parts, signals, form)


def _measures_gradients_alone(call: Call) -> bool:
    """Whether a Shapley front end evaluates no coalitions and so has no error estimate."""
    count = call.further.get("n_samples")
    many = call.game.players.count > BORDER_PLAYERS
    return isinstance(call.method, ShapleyFrontend) and (count == 0 or (count is None and many))


def _gap(call: Call, parts: Tensors) -> Tensor:
    """The attributions' sum minus the change of f, ``(B,)``; NaN for methods that are not complete."""
    total = torch.stack([part.detach().double().flatten(1).sum(1) for part in parts]).sum(0)
    if not (call.method.has_convergence_delta() and call.has_own_baselines):
        return torch.full_like(total, torch.nan)
    ends = call.game.at(torch.tensor([1.0, 0.0]))
    return (total - (ends[:, 0] - ends[:, 1]).squeeze(-1)).abs()
