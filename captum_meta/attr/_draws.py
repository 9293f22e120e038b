"""Draws of baselines, noisy inputs and points of the paths between them, and gradients there."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from captum_meta._model import wide
from captum_meta._random import uniform
from captum_meta.evidence import Game, path_slopes
from captum_meta.evidence.rows import row_keys
from captum_meta.games.players import join
from captum_meta.types import Evidence

_NODE = 0.5
_SURE = 3.0
"""An estimate is so many times the squared error that the spread of the draws says."""


@dataclass(frozen=True)
class Draws:
    """One gradient for each draw of a baseline, a noisy input and a point of the path between them.

    All tensors of draws have those of one example next to each other: ``(B * n, ...)``.

    Attributes:
        game, distribution, stdevs: what is drawn from; the distribution has one tensor of baselines for each input.
        n_samples: n, draws of each example.
        expected: ``(B, M)``, mean difference of the input from the baselines.
        delta: ``(B * n, M)``, differences between the ends of the draws' paths.
        change: ``(B * n,)``, of f between them.
        slopes: ``(B * n, M)``, gradients.
    """

    game: Game
    distribution: tuple[Tensor, ...]
    stdevs: tuple[float, ...]
    n_samples: int
    expected: Tensor
    delta: Tensor
    change: Tensor
    slopes: Tensor

    @classmethod
    def made(
        cls, game: Game, distribution: tuple[Tensor, ...], stdevs: tuple[float, ...], n_samples: int, seed: int
    ) -> Draws:
        """Draws of each example that depend on the seed and the example alone."""
        keys = row_keys(game)
        rows = torch.arange(game.n_examples, device=game.device).repeat_interleave(n_samples)
        repeated = game.take(rows)
        starts = tuple(
            part[_spread_over(part, x, n_samples, keys, seed + 1009 * place).flatten()]
            for place, (part, x) in enumerate(zip(distribution, game.inputs, strict=True))
        )
        expected = join(
            wide(x) - wide(part).mean(0, keepdim=True) for x, part in zip(game.inputs, distribution, strict=True)
        )
        ends = tuple(
            x + (stdev * _normal(keys, (n_samples, *x.shape[1:]), seed + 17 * (place + 2)).flatten(0, 1)).to(x)
            for place, (x, stdev) in enumerate(zip(repeated.inputs, stdevs, strict=True))
        )
        part = torch.arange(n_samples, device=game.device)
        alphas = ((part + uniform(keys, (n_samples,), seed + 1)) / n_samples).flatten()
        middles = tuple(
            b + alphas.to(x).reshape(-1, *[1] * (x.dim() - 1)) * (x - b) for x, b in zip(ends, starts, strict=True)
        )
        delta = join(wide(x) - wide(b) for x, b in zip(ends, starts, strict=True))
        one, last = torch.ones(1), _with_inputs(repeated, ends)
        change = last.at(one).flatten() - _with_inputs(last, starts).at(one).flatten()
        slopes = path_slopes(_with_inputs(last, middles), one)[0].squeeze(-1)
        return cls(game, distribution, stdevs, n_samples, expected, delta, change, _measured(slopes, n_samples))

    def again(self, n_samples: int, seed: int) -> Draws:
        """Other draws of the same examples."""
        return Draws.made(self.game, self.distribution, self.stdevs, n_samples, seed)

    def joined(self, other: Draws) -> Draws:
        """These draws and others of the same examples."""

        def both(one: Tensor, two: Tensor) -> Tensor:
            return torch.cat([one.unflatten(0, (-1, self.n_samples)), two.unflatten(0, (-1, other.n_samples))], 1).flatten(
                0, 1
            )

        pairs = ((self.delta, other.delta), (self.change, other.change), (self.slopes, other.slopes))
        delta, change, slopes = (both(*pair) for pair in pairs)
        return replace(self, n_samples=self.n_samples + other.n_samples, delta=delta, change=change, slopes=slopes)

    def of_rows(self, rows: Tensor) -> Draws:
        """The draws of some of the examples."""

        def some(values: Tensor) -> Tensor:
            return values.unflatten(0, (-1, self.n_samples))[rows].flatten(0, 1)

        delta, change, slopes = (some(values) for values in (self.delta, self.change, self.slopes))
        return replace(
            self, game=self.game.take(rows), expected=self.expected[rows], delta=delta, change=change, slopes=slopes
        )

    def error(self, attributions: Tensor, multiply: bool) -> Tensor:
        """Relative squared error of the means ``(B, M)`` that nine in ten rows stay below, ``(B,)``."""
        parts = self.slopes
        if multiply:
            slope, expected = (
                part.repeat_interleave(self.n_samples, 0) for part in (self._mean(self.slopes), self.expected)
            )
            parts = self.slopes * self.delta - slope * (self.delta - expected)
        if self.n_samples == 1:
            return torch.full_like(parts[:, 0], torch.nan)
        size = attributions.abs().amax(1, keepdim=True).clamp(min=torch.finfo(parts.dtype).tiny)
        spread = (parts.unflatten(0, (-1, self.n_samples)) / size.unsqueeze(1)).var(1).sum(1) / self.n_samples
        return _SURE * spread / (attributions / size).square().sum(1).clamp(min=torch.finfo(parts.dtype).tiny)

    def _mean(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, self.n_samples)).mean(1)

    def evidence(self) -> Evidence:
        """The mean over the draws, as a path of one point.

        Differences from the baselines are a control variate, as their mean over the whole distribution is known: what the
        draws estimate is the covariance of gradients and differences, and not the product of their means. A linear model's
        attributions are so exact from any draws.
        """
        slope = self._mean(self.slopes)
        repeated, expected = (part.repeat_interleave(self.n_samples, 0) for part in (slope, self.expected))
        covariance = self._mean((self.slopes - repeated) * (self.delta - expected))
        effects = (slope * self.expected + covariance * self.n_samples / max(1, self.n_samples - 1)).unsqueeze(-1)
        total = self._mean(self.change) - (slope * (self._mean(self.delta) - self.expected)).sum(1)
        return Evidence(
            effects=effects,
            measured=torch.ones_like(effects, dtype=torch.bool),
            players=self.game.mask,
            total=total,
            curve=(total * _NODE).unsqueeze(-1),
            points=torch.full_like(total, _NODE).unsqueeze(-1),
        )

    def average_gradient(self) -> Tensor:
        """The mean over the draws, ``(B, M)``."""
        return self._mean(self.slopes)

    def deltas(self, multiply: bool) -> Tensor:
        """Each draw's own gap, ``(B * n,)``: of the product with the differences, or of the gradient alone."""
        return (self.slopes * self.delta if multiply else self.slopes).sum(1) - self.change


def _measured(slopes: Tensor, n_samples: int) -> Tensor:
    """Slopes ``(B * n, M)``, those that are not finite replaced by the mean of the row's others."""
    finite = slopes.isfinite()
    if bool(finite.all()):
        return slopes
    known = torch.where(finite, slopes, 0.0).unflatten(0, (-1, n_samples)).sum(1)
    mean = known / finite.unflatten(0, (-1, n_samples)).sum(1).clamp(min=1)
    return torch.where(finite, slopes, mean.repeat_interleave(n_samples, 0))


def samples_of(baselines: Any, x: Tensor) -> Tensor:
    """The distribution of one input's baselines, ``(K, *features)``; of a number itself alone."""
    if not isinstance(baselines, Tensor):
        return torch.full_like(x[:1], baselines)
    assert baselines.shape[1:] == x.shape[1:], "The samples in input and baseline batches must have the same shape."
    if len(baselines) == 0:
        raise ValueError("The distribution of baselines is empty: pass at least one.")
    return baselines.detach().to(x)


def _spread_over(baselines: Tensor, x: Tensor, n_samples: int, keys: Tensor, seed: int) -> Tensor:
    """Indices ``(B, n)`` of baselines, one from each stratum of them along the direction from their mean to the input.

    The strata are met in random order, so that they are unrelated to those of the path.
    """
    count = len(baselines)
    mean = baselines.mean(0)
    along = join([x - mean]).double() @ join([baselines - mean]).double().T
    order = along.argsort(dim=-1, stable=True)
    strata = uniform(keys, (n_samples,), seed + 2).argsort(dim=-1)
    places = (strata + uniform(keys, (n_samples,), seed)) / n_samples * count
    return order.gather(1, places.long().clamp(max=count - 1))


def _with_inputs(game: Game, inputs: tuple[Tensor, ...]) -> Game:
    """The same game at other inputs."""
    return game.of(replace(game.batch, inputs=inputs))


def _normal(keys: Tensor, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.special.ndtri(uniform(keys, shape, seed).clamp(1e-12, 1 - 1e-12))
