"""What the front ends of Integrated Gradients share, whether their players are inputs or activations of a layer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from captum_meta.attr._frontend import Frontend, of_inputs
from captum_meta.attr._incomplete import BEGINNING, CaptumQuadrature, incompletable_rows, is_flat, unexplained_rows
from captum_meta.attr._selection import of_outputs, side_by_side
from captum_meta.estimators.path_sample import certain
from captum_meta.estimators.quadrature import MAX_INTERPOLATED
from captum_meta.evidence import Game, PathPlan, integrate_in_rounds, path_gradients
from captum_meta.evidence.path import check_output
from captum_meta.evidence.path_rounds import MOST, error_of
from captum_meta.games.references import path_mean
from captum_meta.nn.explainer import gap_shares
from captum_meta.types import Evidence

_REFERENCE_STEPS = 200
_MORE = 8
"""Factor by which sums of gradients are rounded more than f."""
_MOST_MOVED = 2.0
"""The most that attributions move by, as a multiple of what a quadrature misses."""
_ALMOST_NOTHING = 2.0**-60
"""Stands for no difference between input and baseline where average gradients are asked for."""


@dataclass(frozen=True)
class PathResult:
    """Attributions of N rows.

    Attributes:
        parts: in the shapes of the game's inputs.
        change: ``(N,)``, f(input) - f(baseline).
        error: ``(N,)``, relative squared error that nine in ten rows stay below; NaN where it was not asked for.
    """

    parts: tuple[Tensor, ...]
    change: Tensor
    error: Tensor

    @property
    def delta(self) -> Tensor:
        """The attributions' sum minus the change, summed as by ``compute_convergence_delta``."""
        return sum(part.reshape(*self.change.shape, -1).sum(-1) for part in self.parts) - self.change

    @classmethod
    def side_by_side(cls, results: list[PathResult], shape: tuple[int, ...]) -> PathResult:
        """Results of several outputs stacked as ``(N, *shape, ...)``; ``shape`` is ``()`` for one output."""

        parts = side_by_side([result.parts for result in results], shape)
        change, error = (of_outputs([getattr(result, name) for result in results], shape) for name in ("change", "error"))
        return cls(parts, change, error)

    def times(self, differences: tuple[Tensor, ...]) -> PathResult:
        """Multipliers times (input - baseline), which may carry a gradient."""
        parts = tuple(part * difference for part, difference in zip(self.parts, differences, strict=True))
        return PathResult(parts, self.change, self.error)

    def returned(self, attributions: Any, with_delta: bool, with_error: bool) -> Any:
        """The attributions, followed by the delta and the error if requested."""
        further = [value for value, wanted in ((self.delta, with_delta), (self.error, with_error)) if wanted]
        return (attributions, *further) if further else attributions


class PathFrontend(Frontend):
    """Integrated Gradients from a few gradients."""

    kind = "path"
    multiplies_by_inputs: bool

    def _integrate(
        self, game: Game, n_steps: int | None, method: str, tolerance: float | None, estimated: bool, multiply: bool
    ) -> PathResult:
        """In rounds if ``n_steps`` is None, else from ``n_steps`` gradients."""
        if tolerance is not None and method != "gausslegendre":
            raise ValueError(
                f"With a tolerance gradients are taken where each row needs them, not at the points of method={method!r}: "
                'pass method="gausslegendre".'
            )
        if method == "gausslegendre" and (n_steps is None or tolerance is not None):
            return self._in_rounds(game, n_steps or MOST, tolerance, multiply)
        n_steps = n_steps or MOST
        plan = self._plan(n_steps, method)
        evidence, gradients, size = plan.measure_gradients(game)
        if game.coupled or game.together:
            return self._as_captum(game, CaptumQuadrature(n_steps, method, multiply), evidence.total)
        weights = plan.weights(evidence)
        points, sums, total = evidence.points, evidence.effects.sum(-2), evidence.total
        explained = partial(self._explained, game, evidence, plan)
        values = quadrature_or(explained, evidence, sums, weights, size, game.precision)
        error = error_of(evidence) if estimated else torch.full_like(evidence.total, torch.nan)
        if not multiply:
            values = multipliers(values, (gradients * weights.unsqueeze(-2)).sum(-1), game)
        seen = (
            evidence.effects.flatten(1) if bool(is_flat(sums, total).any()) else sums
        )  # sums may be 0 of effects that cancel
        inconsistent = unexplained_rows(game, points, sums, evidence.curve, total, seen)
        if bool(inconsistent.any()):
            inconsistent &= evidence.measured.flatten(1).all(1)  # what was not measured is not wrong
        rows = incompletable_rows(game, total, inconsistent)
        values = CaptumQuadrature(n_steps, method, multiply).in_rows(rows, values, game)
        return PathResult(of_inputs(values, game), evidence.total, error.index_fill(0, rows, torch.nan))

    def _explained(self, game: Game, evidence: Evidence, plan: PathPlan) -> Tensor:
        """Attributions ``(N, M)``; players that are missing all along the path have what f does where it begins."""
        if game.finite:
            return self._attributions(evidence, plan)
        missing = ~game.difference.isfinite()
        start = game.at(torch.tensor([BEGINNING, 0.0])).squeeze(-1)
        jump = torch.where(missing.any(1), start[:, 0] - start[:, 1], 0.0).to(evidence.total)
        rest = replace(evidence, total=evidence.total - jump, curve=evidence.curve - jump.unsqueeze(1))
        shares = gap_shares(missing.to(jump), missing.any(1, keepdim=True) & game.mask)
        return self._attributions(rest, plan) + shares * jump.unsqueeze(1)

    def _as_captum(self, game: Game, quadrature: CaptumQuadrature, total: Tensor) -> PathResult:
        """Captum's own quadrature, where all rows must be at the same point of their paths, and may act on each other."""
        return PathResult(of_inputs(quadrature.values(game), game), total, torch.full_like(total, torch.nan))

    def _in_rounds(self, game: Game, limit: int, tolerance: float | None, multiply: bool) -> PathResult:
        # The input comes first: rows that act on each other are found where they differ.
        ends = game.at(torch.tensor([1.0, 0.0]))
        check_output(game, ends)
        ends = ends.squeeze(-1).flip(1).double()
        if game.together:
            change = (ends[:, 1] - ends[:, 0]).to(game.difference)
            return self._as_captum(game, CaptumQuadrature(limit, "gausslegendre", multiply), change)
        difference, total = game.difference, ends[:, 1] - ends[:, 0]
        if not multiply:
            difference = torch.where(difference == 0, _ALMOST_NOTHING, difference)
        missing = ~difference.isfinite()
        if bool(missing.any()):
            # Missing values are missing all along the path: whatever they do, they do where it begins.
            begins = game.at(torch.tensor([BEGINNING])).squeeze(-1).double()
            ends = torch.where(missing.any(1, keepdim=True), torch.cat([begins, ends[:, 1:]], dim=1), ends)
        found = integrate_in_rounds(game, torch.where(missing, 0.0, difference), ends, limit, tolerance)
        values = found.attributions
        inconsistent = found.inconsistent.to(game.device) | (is_flat(values, total) & ~missing.any(1))
        gap = certain(total - values.sum(1, dtype=torch.float64), ends.abs().amax(1), game.precision).to(values)
        weights = torch.where(missing.any(1, keepdim=True), missing, values.abs())
        values = values + gap_shares(weights, game.mask) * gap.unsqueeze(1)
        if not multiply:
            values = values / difference
        rows = incompletable_rows(game, total, inconsistent)
        rows = torch.cat([rows, found.hidden.to(rows.device).index_fill(0, rows, False).nonzero().flatten()])
        values = CaptumQuadrature(min(limit, MOST), "gausslegendre", multiply).in_rows(rows, values, game)
        error = found.error.to(values).index_fill(0, rows, torch.nan)
        return PathResult(of_inputs(values, game), total.to(values), error)

    def _game(self, inputs: Any, *others: Any) -> Game:
        return super()._game(real(inputs), *others)

    def _plan(self, steps: int = 10, method: str = "gausslegendre") -> PathPlan:
        return PathPlan(steps, method, reading=self._learner.read.reading)

    def _reference(self, game: Game) -> Tensor:
        """A long run of Captum's own quadrature, ``(N, M)``."""
        difference = game.difference
        return path_mean(lambda points: path_gradients(game, points)[0], _REFERENCE_STEPS).to(difference) * difference


def real(inputs: Any) -> Any:
    """Inputs with whole numbers as real ones, in the default precision: a path leads through what lies between."""
    if isinstance(inputs, tuple):
        return tuple(real(part) for part in inputs)
    whole = isinstance(inputs, Tensor) and not inputs.is_floating_point() and not inputs.is_complex()
    return inputs.to(torch.get_default_dtype()) if whole else inputs


def quadrature_or(
    explained: Callable[[], Tensor], evidence: Evidence, sums: Tensor, weights: Tensor, size: Tensor, precision: float
) -> Tensor:
    """Attributions ``(N, M)``: those of the quadrature alone in rows where it misses no more than rounding.

    Of many gradients, where these move attributions by far more than is missed, it is shared out by size: what is missed
    lies where there is no gradient, and jumps between others, which cancel, tell nothing of it.

    Args:
        explained: gives the others' ``(N, M)``; not asked if there are none.
        evidence, weights: of the quadrature.
        sums: ``(N, G)``, of the effects over the players.
        size: ``(N,)``, how large f is.
        precision: of f.
    """
    parts = sums * weights
    size = torch.maximum(size, _MORE * parts.abs().sum(1))
    precision = max(precision, torch.finfo(sums.dtype).eps)
    complete = certain(evidence.total - parts.sum(1), size, precision) == 0
    many = evidence.points.shape[1] > MAX_INTERPOLATED
    if not many and not bool(complete.any()):
        return explained()
    quadrature = (evidence.effects @ weights.unsqueeze(-1)).squeeze(-1)
    if bool(complete.all()):
        return quadrature
    values = explained()
    if many:
        gap = (evidence.total - parts.sum(1)).unsqueeze(1)
        far = (values - quadrature).abs().sum(1, keepdim=True) > _MOST_MOVED * gap.abs()
        by_size = quadrature + gap * gap_shares(quadrature.abs(), evidence.players)
        values = torch.where(far & evidence.measured.all(2).all(1, keepdim=True), by_size, values)
    return torch.where(complete.unsqueeze(1), quadrature, values)


def multipliers(values: Tensor, average: Tensor, game: Game) -> Tensor:
    """Attributions over (input - baseline), and the average gradient where input and baseline are the same."""
    difference = game.difference.to(values)
    same = difference == 0
    return torch.where(same, average.to(values), values / torch.where(same, 1.0, difference))
