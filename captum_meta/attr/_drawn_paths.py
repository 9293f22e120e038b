"""Paths from drawn baselines to noisy inputs, each differentiated at one point."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta._model import wide
from captum_meta._random import row_keys, uniform
from captum_meta.evidence import Game
from captum_meta.games import Batch
from captum_meta.games.batch import change
from captum_meta.games.players import join

Parts = tuple[Tensor, ...]


@dataclass(frozen=True)
class DrawnPaths:
    """Paths from drawn baselines to noisy inputs, and a point of each; those of one example next to each other.

    Attributes:
        rows: ``(B * n,)``, which example each draw is of.
        chosen: for each input, which of its baselines each draw begins at, ``(B, n)``.
        starts, ends, differences, middles: for each input ``(B * n, *features)``.
    """

    rows: Tensor
    chosen: Parts
    starts: Parts
    ends: Parts
    differences: Parts
    middles: Parts

    @classmethod
    def of(cls, game: Game, distribution: Parts, stdevs: tuple[float, ...], n_samples: int, seed: int) -> DrawnPaths:
        """``n_samples`` paths of each example that depend on the seed and the example alone."""
        keys = row_keys(tuple(part.detach() for part in game.inputs))
        numbers = uniform(keys, (2 * len(distribution) + 1, n_samples), seed)
        rows = torch.arange(game.n_examples, device=game.device).repeat_interleave(n_samples)
        chosen = tuple(
            spread_over(part, x, numbers[:, 2 * place : 2 * place + 2])
            for place, (part, x) in enumerate(zip(distribution, game.inputs, strict=True))
        )
        starts = tuple(part[index.flatten()] for part, index in zip(distribution, chosen, strict=True))
        ends = tuple(
            _noisy(x[rows], stdev, keys, seed + 17 * (place + 2))
            for place, (x, stdev) in enumerate(zip(game.inputs, stdevs, strict=True))
        )
        differences = tuple(change(x, b) for x, b in zip(ends, starts, strict=True))
        alphas = ((torch.arange(n_samples, device=game.device) + numbers[:, -1]) / n_samples).flatten()
        middles = tuple(
            torch.addcmul(wide(b), alphas.to(d).reshape(-1, *[1] * (d.dim() - 1)), d).to(b.dtype)
            for b, d in zip(starts, differences, strict=True)
        )
        return cls(rows, chosen, starts, ends, differences, middles)

    def standing(self, game: Game, inputs: Parts) -> Batch:
        """Points of the paths as a batch, with the other arguments of their examples."""
        return game.batch.standing_for(self.rows, inputs, self.starts)


def spread_over(baselines: Tensor, x: Tensor, numbers: Tensor) -> Tensor:
    """Indices ``(B, n)`` of baselines, one from each stratum of them along the direction from their mean to the input.

    The strata are visited in random order, independent of the path's. ``numbers (B, 2, n)`` are uniform.
    """
    count, n_samples = len(baselines), numbers.shape[-1]
    if count == 1:
        return torch.zeros_like(numbers[:, 0], dtype=torch.long)
    mean = baselines.mean(0)
    along = join([x - mean]).double() @ join([baselines - mean]).double().T
    places = (numbers[:, 0].argsort(dim=-1) + numbers[:, 1]) / n_samples * count
    return along.argsort(dim=-1, stable=True).gather(1, places.long().clamp(max=count - 1))


def _noisy(x: Tensor, stdev: float, keys: Tensor, seed: int) -> Tensor:
    """The inputs ``(B * n, *features)`` with normal noise of their own."""
    if not stdev:
        return x
    uniforms = uniform(keys, (len(x) // len(keys), *x.shape[1:]), seed).clamp(1e-12, 1 - 1e-12)
    return x + (stdev * torch.special.ndtri(uniforms).flatten(0, 1)).to(x)
