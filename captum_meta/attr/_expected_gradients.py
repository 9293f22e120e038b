"""Expected gradients, the mean over background rows of Integrated Gradients: how a row's budget of gradients is spent.

Where there are two or more gradients for each background row, each has a quadrature of its own, which the change of f along
its path completes. With fewer, gradients are drawn: background rows and points of the paths are stratified, and differences
from the background rows, whose mean is known, are a control variate (:mod:`captum_meta.attr._draws`). With a tolerance there
are rounds: more draws, beside those before, and then quadratures of more and more points.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from captum_meta._random import uniform
from captum_meta.attr._drawn_paths import spread_over
from captum_meta.attr._draws import Draws, measured
from captum_meta.attr._incomplete import INCONSISTENT, UNKNOWN, warn_of_rows
from captum_meta.estimators import gauss_legendre
from captum_meta.evidence import row_keys
from captum_meta.evidence.consistency import wrong_rows
from captum_meta.evidence.path import check_output, measured_gradients, path_evidence
from captum_meta.evidence.path_rounds import error_of
from captum_meta.games import MeanGame
from captum_meta.games.players import join
from captum_meta.nn.explainer import gap_shares
from captum_meta.types import Evidence

_FEWEST = 2
"""Fewest gradients per background row with which each has a quadrature."""
_FEW = 5.0
"""Draws at which their spread shows half of the error."""
_DOUBTFUL = 0.25
"""Part of f's change that a path's gradients may miss before they are checked: each output's are by themselves."""
_NOTICEABLE = 0.01
"""Smallest miss, as a part of a row's effects, by which gradients count as not those of f: less is rounding."""
_FIRST, _NEXT = 16, 1009
"""Gradients of the first round where there is a tolerance, and how far the seeds of rounds are apart."""
_MAX_NUMBERS = 2**24
Explain = Callable[[Evidence], Tensor]
"""From measured paths ``(R, M, G)`` to attributions ``(R, M)``."""


def expected_gradients(
    game: MeanGame, n_steps: int, multiply: bool, seed: int, explain: Explain, tolerance: float | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Attributions ``(N, O, M)``, their sums less f(input) - mean f(background) and error estimates, both ``(N, O)``.

    Rows whose gradients are not those of f, and rows with a background row at which f is not finite, are not completed.

    Args:
        game: the explained model, the rows and the background rows; its O outputs come from the same forwards.
        n_steps: gradients of each row.
        multiply: False for the average gradient instead of its product with the differences.
        seed: of draws.
        explain: a learner's attributions of the path from one background row.
        tolerance: a row takes gradients until all of its outputs' error estimates are at most this.
    """
    everyone, nobody = game.ends()
    check_output(game.game, everyone.unsqueeze(1))
    total = everyone.double() - torch.einsum("nko,k->no", nobody.double(), game.weights)
    rows = torch.arange(game.n_rows, device=game.device)
    parts = []
    numbers = n_steps * sum(part[0].numel() for part in game.inputs) * everyone.shape[1]
    for some in rows.split(max(1, _MAX_NUMBERS // numbers)):
        paths = _Paths(game.take(some), everyone[some], nobody[some], multiply, seed, explain)
        parts.append(paths.at_once(n_steps) if tolerance is None else paths.in_rounds(n_steps, tolerance))
    values, errors, strange = (torch.cat(found) for found in zip(*parts, strict=True))
    unknown = ~total.isfinite()
    strange = strange & ~unknown
    warn_of_rows(unknown.any(1), UNKNOWN)
    warn_of_rows(strange.any(1), INCONSISTENT)
    errors = errors.masked_fill(strange | unknown, torch.nan)
    if multiply:
        gap = (total - values.sum(-1, dtype=torch.float64)).to(values).masked_fill(strange | unknown, 0.0)
        values = values + gap_shares(values.abs(), torch.ones_like(values, dtype=torch.bool)) * gap.unsqueeze(-1)
    return values, values.sum(-1) - total.to(values), errors


def rounds(limit: int, count: int) -> Iterator[tuple[int, bool]]:
    """Gradients per row of each round, at most ``limit`` in all: draws, as many as in all rounds before; then
    quadratures from each of the ``count`` background rows, of twice as many points as the last, marked by True.

    >>> list(rounds(900, 50))
    [(16, False), (16, False), (32, False), (64, False), (100, True), (200, True), (400, True)]
    """
    drawn, each = 0, 1
    while limit > 0:
        if drawn + _FIRST > _FEWEST * count and limit // count > each:
            each = min(2 * each, limit // count)
            made = each * count
        elif each == 1:
            made = min(max(drawn, _FIRST), limit)
            drawn += made
        else:
            return
        yield made, each > 1
        limit -= made


@dataclass(frozen=True)
class _Paths:
    """Paths of N rows from K background rows.

    Attributes:
        game: the rows and the background rows.
        everyone, nobody: f at the ends of the paths, ``(N, O)`` and ``(N, K, O)``.
        multiply, seed, explain: as for :func:`expected_gradients`.
    """

    game: MeanGame
    everyone: Tensor
    nobody: Tensor
    multiply: bool
    seed: int
    explain: Explain

    def at_once(self, n_steps: int) -> tuple[Tensor, Tensor, Tensor]:
        """Means ``(N, O, M)``, error estimates, and whether gradients are not those of f, both ``(N, O)``."""
        if n_steps < _FEWEST * self.game.count:
            return self._of_draws(self._drawn(n_steps, self.seed))
        return self._of_each(n_steps // self.game.count)

    def in_rounds(self, limit: int, tolerance: float) -> tuple[Tensor, Tensor, Tensor]:
        """The same, in rounds; a row is finished when none of its outputs' estimates exceeds the tolerance."""
        rows, paths, draws = torch.arange(self.game.n_rows, device=self.game.device), self, list[Draws]()
        known = self.everyone.isfinite().all(1) & self.nobody.isfinite().flatten(1).all(1)
        answer = None
        for turn, (made, of_each) in enumerate(rounds(limit, self.game.count)):
            if of_each:
                found = paths._of_each(made // self.game.count)
            else:
                further = paths._drawn(made, self.seed + _NEXT * turn)
                draws = [one.joined(other) for one, other in zip(draws, further, strict=True)] if draws else further
                found = paths._of_draws(draws)
            answer = found if answer is None else _replaced(answer, rows, found)
            going = (found[1] > tolerance).any(1) & known[rows]
            if not bool(going.any()):
                break
            if not self.game.game.together:
                kept = going.nonzero().flatten()
                rows, paths, draws = rows[kept], paths._take(kept), [one.of_rows(kept) for one in draws]
        assert answer is not None
        return answer

    def _take(self, rows: Tensor) -> _Paths:
        return replace(self, game=self.game.take(rows), everyone=self.everyone[rows], nobody=self.nobody[rows])

    def _drawn(self, count: int, seed: int) -> list[Draws]:
        """One gradient for each of ``count`` draws of a background row and a point of the path from it; for each output."""
        game = self.game
        keys, background, inputs = row_keys(game.game), join(game.background), join(game.inputs)
        numbers = uniform(keys, (3, count), seed)
        behind = spread_over(background, inputs, numbers[:, :2])
        alphas = (torch.arange(count, device=game.device) + numbers[:, 2]) / count
        one = game.with_one(behind)
        gradients = measured_gradients(one, one.gradients(alphas.reshape(-1, 1)))[0].squeeze(-2)
        return [
            Draws(
                game=game.game,
                distribution=game.background,
                stdevs=(0.0,) * len(game.inputs),
                n_samples=count,
                expected=inputs - background.mean(0, keepdim=True),
                delta=one.difference,
                change=torch.zeros_like(of_output[:, 0]),
                gradients=of_output,
            )
            for of_output in measured(gradients, count).unbind(-1)
        ]

    def _of_draws(self, draws: list[Draws]) -> tuple[Tensor, Tensor, Tensor]:
        means = [one.expected_gradients[0] if self.multiply else one.average_gradient() for one in draws]
        more = 1 + _FEW / draws[0].n_samples
        errors = torch.stack([more * one.error(mean, self.multiply) for one, mean in zip(draws, means, strict=True)], 1)
        return torch.stack(means, 1), errors, torch.zeros_like(errors, dtype=torch.bool)

    def _of_each(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """The answer from ``count`` gradients on the path from each background row."""
        game, (n_rows, n_background) = self.game, self.nobody.shape[:2]
        drawn = torch.arange(n_background, device=game.device).expand(n_rows, -1)
        one, (nodes, weights) = game.with_one(drawn), gauss_legendre(count)
        gradients, curves = measured_gradients(one, one.gradients(nodes))
        known = torch.stack([self.nobody.flatten(0, 1), self.everyone.repeat_interleave(n_background, 0)], dim=1)
        found = []
        each_output = zip(gradients.unbind(-1), curves.unbind(-1), known.unbind(-1), strict=True)
        for output, (gradient, curve, of_ends) in enumerate(each_output):
            evidence, gradient = path_evidence(one, nodes, gradient, curve, of_ends)
            average = gradient @ weights.to(gradient)
            values, effects = average, average * one.difference
            points, sums, total = evidence.points, evidence.effects.sum(1), evidence.total
            strange = wrong_rows(one, points, sums, evidence.curve, total, output, _DOUBTFUL)
            if self.multiply:
                plain = strange | ~evidence.total.isfinite()
                values = torch.where(plain.unsqueeze(1), effects, self.explain(evidence))
            mean = values.unflatten(0, (n_rows, -1)).mean(1)
            squares = (error_of(evidence).to(values) * values.square().sum(1)).unflatten(0, (n_rows, -1)).mean(1)
            error = squares / mean.square().sum(1).clamp(min=torch.finfo(mean.dtype).tiny)
            missed = torch.where(strange, (evidence.total - effects.sum(1)).abs(), 0.0)
            missed, said = (each.unflatten(0, (n_rows, -1)).sum(1) for each in (missed, effects.abs().sum(1)))
            found.append((mean, error, missed > _NOTICEABLE * said))
        means, errors, stranges = (torch.stack(each, dim=1) for each in zip(*found, strict=True))
        return means, errors, stranges


def _replaced(
    answer: tuple[Tensor, Tensor, Tensor], rows: Tensor, found: tuple[Tensor, Tensor, Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """The answer with some rows replaced."""
    values, errors, strange = (whole.index_copy(0, rows, part) for whole, part in zip(answer, found, strict=True))
    return values, errors, strange
