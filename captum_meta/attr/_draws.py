"""Expected gradients from draws of baselines, noisy inputs and points of the paths between them."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_meta._model import wide
from captum_meta.attr._drawn_paths import DrawnPaths, Parts
from captum_meta.attr._incomplete import is_flat
from captum_meta.evidence import Game
from captum_meta.evidence.consistency import stepping_rows
from captum_meta.evidence.path import own_output_gradients
from captum_meta.games.batch import change
from captum_meta.games.players import join
from captum_meta.nn.explainer import gap_shares
from captum_meta.types import Evidence

_NODE = 0.5
_RIDGE = 5
"""Draws that a covariance of 0 counts for. On 24 random nets over correlated features, 3 to 12 differ by a tenth at most."""
_SURE = 3.0
"""Factor from the squared standard error of the draws to the 90 % bound."""

_MUCH = 0.5
"""A jump of f is looked for where the gap exceeds this part of the sum of the attributions' sizes."""
_STEP = 0.05
"""Smallest jump of f that matters, as a part of what a draw misses."""

_FEWEST = 5
"""Fewest draws that show whether gradients are those of f."""
_ALIKE, _NOTICEABLE = 4.0, 0.25
"""Gradients are not those of f where the draws' mean miss is this many standard errors, and this part of their effects."""
_CHANCE, _OF_NORMAL = 0.5, 1.4826
"""Standard errors of the draws' misses that count as chance; and a normal variable's standard deviation over its
median absolute deviation."""


@dataclass(frozen=True)
class Draws:
    """One gradient for each draw of a baseline, a noisy input and a point of the path between them.

    All tensors of draws have those of one example next to each other: ``(B * n, ...)``.

    Attributes:
        game, distribution, stdevs: what draws are made from; the distribution has one tensor of baselines for each input.
        n_samples: n, draws of each example.
        expected: ``(B, M)``, mean difference of the input from the baselines.
        delta: ``(B * n, M)``, differences between the ends of the draws' paths.
        change: ``(B * n,)``, of f between them.
        gradients: ``(B * n, M)``, at the points drawn.
        paths: of the draws; None where they are not needed.
        output: which of the game's outputs f is.
        known_steps: ``(B,)``, whether f jumps on other draws' paths; None where this was not looked for.
    """

    game: Game
    distribution: tuple[Tensor, ...]
    stdevs: tuple[float, ...]
    n_samples: int
    expected: Tensor
    delta: Tensor
    change: Tensor
    gradients: Tensor
    paths: DrawnPaths | None = None
    output: int = 0
    known_steps: Tensor | None = None

    @classmethod
    def made(
        cls, game: Game, distribution: tuple[Tensor, ...], stdevs: tuple[float, ...], n_samples: int, seed: int
    ) -> tuple[Draws, ...]:
        """Draws of each example that depend on the seed and the example alone; for each output of the game its own."""
        paths = DrawnPaths.of(game, distribution, stdevs, n_samples, seed)
        expected = expected_difference(game, distribution)
        gradients, _ = own_output_gradients(game.of(paths.standing(game, paths.middles)))
        each = torch.arange(len(paths.rows), device=game.device).reshape(-1, n_samples)
        after = (paths.ends, each) if any(stdevs) else (game.inputs, game.batch.everyone.unsqueeze(1))
        few = len(distribution) == 1 and len(distribution[0]) <= len(paths.rows)
        before = (distribution, paths.chosen[0]) if few else (paths.starts, each)
        changes = _changes(game, *after, *before).flatten(0, 1)
        delta, gradients = join(paths.differences), measured(gradients, n_samples)
        shared = (game, distribution, stdevs, n_samples, expected, delta)
        each_output = enumerate(zip(changes.unbind(-1), gradients.unbind(-1), strict=True))
        return tuple(cls(*shared, *one, paths, output) for output, one in each_output)

    def again(self, n_samples: int, seed: int) -> tuple[Draws, ...]:
        """Other draws of the same examples, for each output."""
        return Draws.made(self.game, self.distribution, self.stdevs, n_samples, seed)

    def joined(self, other: Draws) -> Draws:
        """These draws and others of the same examples."""

        def both(one: Tensor, two: Tensor) -> Tensor:
            return torch.cat([self._each(one), other._each(two)], 1).flatten(0, 1)

        pairs = ((self.delta, other.delta), (self.change, other.change), (self.gradients, other.gradients))
        delta, change, gradients = (both(*pair) for pair in pairs)
        count, steps = self.n_samples + other.n_samples, self.steps | other.steps
        return replace(self, n_samples=count, delta=delta, change=change, gradients=gradients, paths=None, known_steps=steps)

    def of_rows(self, rows: Tensor) -> Draws:
        """The draws of some of the examples."""

        def some(values: Tensor) -> Tensor:
            return self._each(values)[rows].flatten(0, 1)

        delta, change, gradients = (some(values) for values in (self.delta, self.change, self.gradients))
        game, expected, steps = self.game.take(rows), self.expected[rows], self.steps[rows]
        one = replace(self, game=game, expected=expected, delta=delta, change=change, gradients=gradients)
        return replace(one, paths=None, known_steps=steps)

    def error(self, attributions: Tensor, multiply: bool) -> Tensor:
        """Relative squared error of the means ``(B, M)`` that nine in ten rows stay below, ``(B,)``."""
        gradients, delta = self._each(self.gradients), self._each(self.delta)
        parts = gradients
        if multiply:
            parts = gradients * delta - gradients.mean(1, keepdim=True) * (delta - self.expected.unsqueeze(1))
        if self.n_samples == 1:
            return torch.full_like(parts[:, 0, 0], torch.nan)
        size = attributions.abs().amax(1, keepdim=True).clamp(min=torch.finfo(parts.dtype).tiny)
        spread = (parts / size.unsqueeze(1)).var(1).sum(1) / self.n_samples
        return _SURE * spread / (attributions / size).square().sum(1).clamp(min=torch.finfo(parts.dtype).tiny)

    @cached_property
    def effects(self) -> Tensor:
        """Gradients times differences, ``(B * n, M)``."""
        return self.gradients * self.delta

    @cached_property
    def unknown(self) -> Tensor:
        """Whether f is not finite at the ends of one of the paths, ``(B,)``."""
        return ~self._each(self.change).isfinite().all(1)

    @cached_property
    def inconsistent(self) -> Tensor:
        """Whether all draws miss the change of f by about the same, ``(B,)``: then their gradients are not those of f.

        Gradients of f miss it by 0 in the mean over the path. With fewer than five draws, only whether all
        gradients are 0.
        """
        flat = is_flat(self._each(self.effects).flatten(1), self._each(self.change).abs().sum(1))
        if self.n_samples < _FEWEST:
            return flat
        change, size = self._each(self.change), self._each(self.effects.abs().sum(1)).mean(1)
        spread, mean = torch.std_mean(self._missed, dim=1)
        alike = mean.abs() > _ALIKE * spread / self.n_samples**0.5
        return flat | alike & (mean.abs() > _NOTICEABLE * size) & (size > _NOTICEABLE * change.abs().mean(1))

    @cached_property
    def gap(self) -> Tensor:
        """The part of the gap, f's mean change minus the expected gradients' sum, that is shared out, ``(B,)``.

        Gradients of f miss its changes by 0 in the mean over the draws, so half a standard error of that is chance. What
        is missed beyond it may belong to no gradient, as where f jumps on some of the paths: the error is that of the median
        absolute deviation, which jumps on less than half of the paths do not raise. Where most of f's change is missed, f
        is seen to jump or not, and if it does not, all is shared out. 0 for gradients that are not those of f, and where f
        is not finite.
        """
        spread = (self._missed - self._missed.median(1, keepdim=True).values).abs().median(1).values
        by_chance = _CHANCE * _OF_NORMAL * spread / self.n_samples**0.5
        missed, most = self._gap, torch.where(self._much & ~self.steps, torch.inf, by_chance)
        return torch.where(self.inconsistent | ~missed.isfinite(), 0.0, missed.clamp(-most, most))

    @cached_property
    def steps(self) -> Tensor:
        """Whether f jumps on the path of the draw that misses most, in rows that miss much of f's change, ``(B,)``."""
        if self.known_steps is not None:
            return self.known_steps
        if self.paths is None or not bool(self._much.any()):
            return torch.zeros_like(self._much)
        most, place = self._missed.abs().max(1)
        rows = place + self.n_samples * torch.arange(len(place), device=place.device)
        paths = self.game.of(self.paths.standing(self.game, self.paths.ends)).take(rows)
        least = torch.where(self._much, _STEP * most, 0.0).detach().double().cpu().numpy()
        return stepping_rows(paths, np.tile([0.0, 1.0], (len(least), 1)), least, self.output)

    @cached_property
    def _much(self) -> Tensor:
        """Whether five draws or more miss so much of f's change that a jump is looked for, ``(B,)``."""
        values, _ = self.expected_gradients
        much = self._gap.abs() > _MUCH * values.abs().sum(1)
        return much & ~self.inconsistent if self.n_samples >= _FEWEST else torch.zeros_like(much)

    @cached_property
    def _gap(self) -> Tensor:
        values, total = self.expected_gradients
        return total - values.sum(1)

    @cached_property
    def _missed(self) -> Tensor:
        """f's change minus the effects of each draw, ``(B, n)``."""
        return -self.deltas(multiply=True)

    def completed(self) -> Tensor:
        """Expected gradients ``(B, M)`` plus :attr:`gap`, shared out by their sizes."""
        values, _ = self.expected_gradients
        return values + self.gap.unsqueeze(1) * gap_shares(values.abs(), self.game.mask)

    def _each(self, values: Tensor) -> Tensor:
        """Values of all draws as ``(B, n, ...)``."""
        return values.unflatten(0, (-1, self.n_samples))

    def _mean(self, values: Tensor) -> Tensor:
        return self._each(values).mean(1)

    @cached_property
    def expected_gradients(self) -> tuple[Tensor, Tensor]:
        r"""Estimates ``(B, M)`` of expected gradients, and of the change of f from the baselines in the mean, ``(B,)``.

        .. math:: \bar g_i \, E d_i + \frac{n}{n + 5} \, \overline{(g_i - \bar g_i)(d_i - E d_i)}

        with the gradients g and the differences d of the n draws, whose mean over the whole distribution is known: what is
        estimated is a covariance, and not a product of means, so that of a linear model nothing is left to chance. Of few
        draws a covariance is mostly noise; so it is drawn towards 0 (ridge regression), by less the more draws there are.
        """
        gradient, delta = self._mean(self.gradients), self._mean(self.delta)
        covariance = self._mean(self.effects) - gradient * delta
        total = self._mean(self.change) - (gradient * (delta - self.expected)).sum(1)
        return gradient * self.expected + self.n_samples / (self.n_samples + _RIDGE) * covariance, total

    def evidence(self) -> Evidence:
        """The mean over the draws as a path of one point, along which f changes by their sum and the gap to share out."""
        effects, _ = self.expected_gradients
        total = effects.sum(1) + self.gap
        return Evidence(
            effects=effects.unsqueeze(-1),
            measured=torch.ones_like(effects, dtype=torch.bool).unsqueeze(-1),
            players=self.game.mask,
            total=total,
            curve=(total * _NODE).unsqueeze(-1),
            points=torch.full_like(total, _NODE).unsqueeze(-1),
        )

    def average_gradient(self) -> Tensor:
        """The mean over the draws, ``(B, M)``."""
        return self._mean(self.gradients)

    def deltas(self, multiply: bool) -> Tensor:
        """Each draw's own gap, ``(B, n)``: of the product with the differences, or of the gradient alone."""
        return self._each((self.effects if multiply else self.gradients).sum(1) - self.change)


def expected_difference(game: Game, distribution: Parts) -> Tensor:
    """Mean difference of the inputs from their baselines, ``(B, M)``."""
    pairs = zip(game.inputs, distribution, strict=True)
    return join(change(x, wide(part).mean(0, keepdim=True)) for x, part in pairs)


def measured(gradients: Tensor, n_samples: int) -> Tensor:
    """Gradients ``(B * n, M, *)``, where the mean of the row's others replaces those that are not finite."""
    finite = gradients.isfinite()
    if bool(finite.all()):
        return gradients
    known = torch.where(finite, gradients, 0.0).unflatten(0, (-1, n_samples)).sum(1)
    mean = known / finite.unflatten(0, (-1, n_samples)).sum(1).clamp(min=1)
    return torch.where(finite, gradients, mean.repeat_interleave(n_samples, 0))


def samples_of(baselines: Any, x: Tensor) -> Tensor:
    """The distribution of one input's baselines, ``(K, *features)``; a number alone is one of K = 1."""
    if not isinstance(baselines, Tensor):
        return torch.full_like(x[:1], baselines)
    assert baselines.shape[1:] == x.shape[1:], "The samples in input and baseline batches must have the same shape."
    if len(baselines) == 0:
        raise ValueError("The distribution of baselines is empty: pass at least one.")
    return baselines.detach().to(x)


def _changes(game: Game, ends: Parts, end: Tensor, starts: Parts, start: Tensor) -> Tensor:
    """f of each row's ``end (B, n or 1)`` among ``ends`` minus that of its ``start (B, n)`` among ``starts``."""
    together = tuple(torch.cat(pair) for pair in zip(ends, starts, strict=True))
    values = game.in_place(together, torch.cat([end, start + len(ends[0])], dim=1))
    return values[:, : end.shape[1]] - values[:, end.shape[1] :]
