"""Random data for random models, a whole batch of data sets at once: ``(T, R, M, V)``, T data sets of R rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Generator, Tensor

_T = TypeVar("_T")


def normal(shape: tuple[int, ...], generator: Generator) -> Tensor:
    """Standard normal numbers of the family's own generator."""
    return torch.randn(shape, generator=generator)


def pick(generator: Generator, *options: _T) -> _T:
    """One of ``options`` at random."""
    return options[int(torch.randint(len(options), (), generator=generator))]


def tables(n_tasks: int, n_rows: int, n_players: int, generator: Generator) -> Tensor:
    """Standardised tables: correlated columns, clusters, heavy tails, steps and uniform columns; ``(T, R, M, 1)``."""
    factors = int(torch.randint(1, n_players + 1, (), generator=generator))
    loadings = normal((n_tasks, factors, n_players), generator) / factors**0.5
    noise = 2.0 ** torch.randint(-3, 2, (n_tasks, 1, n_players), generator=generator)
    columns = normal((n_tasks, n_rows, factors), generator) @ loadings
    columns = columns + noise * normal((n_tasks, n_rows, n_players), generator)
    n_clusters = int(torch.randint(1, 6, (), generator=generator))
    centres = 2 * torch.rand((), generator=generator) * normal((n_tasks, n_clusters, n_players), generator)
    member = torch.randint(n_clusters, (n_tasks, n_rows), generator=generator)
    columns = columns + centres.gather(1, member.unsqueeze(-1).expand(-1, -1, n_players))
    shape = torch.randint(0, 6, (n_tasks, 1, n_players), generator=generator)
    columns = torch.where(shape == 1, columns.sign() * columns.abs().clamp(max=6).exp(), columns)
    columns = torch.where(shape == 2, (columns > columns.mean(1, keepdim=True)).to(columns), columns)
    columns = torch.where(shape == 3, columns.round(), columns)
    columns = (columns - columns.mean(1, keepdim=True)) / columns.std(1, keepdim=True).clamp(min=0.1)
    return columns.unsqueeze(-1).clamp(-8, 8)


def sentences(n_tasks: int, n_rows: int, n_players: int, width: int, generator: Generator) -> Tensor:
    """Token embeddings drawn from a vocabulary with frequent and rare words, position added or not."""
    vocabulary = normal((n_tasks, 60, width), generator)
    frequency = torch.rand(n_tasks, 60, generator=generator) ** 3 + 1e-3
    words = torch.multinomial(frequency.repeat_interleave(n_rows, 0), n_players, True, generator=generator)
    words = words.reshape(n_tasks, n_rows * n_players, 1).expand(-1, -1, width)
    tokens = vocabulary.gather(1, words).reshape(n_tasks, n_rows, n_players, width)
    return tokens + 0.3 * normal((n_tasks, 1, n_players, width), generator)


def patches(n_tasks: int, n_rows: int, grid: int, patch: int, generator: Generator) -> Tensor:
    """Images of strokes and blobs, cut into ``grid**2`` patches of ``patch**2`` pixels."""
    side = grid * patch
    prototypes = normal((n_tasks, 6, side // 2 + 1, side // 2 + 1), generator)
    prototypes = torch.nn.functional.interpolate(prototypes, size=(side, side), mode="bilinear")
    which = torch.randint(6, (n_tasks, n_rows), generator=generator)[..., None, None].expand(-1, -1, side, side)
    images = prototypes.gather(1, which) + 0.4 * normal((n_tasks, n_rows, side, side), generator)
    images = images.relu() if pick(generator, True, False) else images
    cut = images.reshape(n_tasks, n_rows, grid, patch, grid, patch).transpose(3, 4)
    return cut.reshape(n_tasks, n_rows, grid * grid, patch * patch)


def teacher_outputs(columns: Tensor, n_outputs: int, generator: Generator) -> Tensor:
    """Targets for training: a random two-layer function with some interactions, ``(T, R, K)``."""
    flat = columns.flatten(2)
    hidden = 2 ** int(torch.randint(2, 6, (), generator=generator))
    sparse = (torch.rand(len(flat), flat.shape[-1], 1, generator=generator) < 0.6).to(flat)
    weights = sparse * normal((len(flat), flat.shape[-1], hidden), generator)
    inner = flat @ (2 * weights / (weights.square().sum(1, keepdim=True) + 1e-6).sqrt())
    outer = normal((len(flat), hidden, n_outputs), generator)
    activation: Callable[[Tensor], Tensor] = pick(generator, torch.tanh, torch.relu, torch.sin, torch.square)
    outputs = activation(inner + normal((len(flat), 1, hidden), generator)) @ outer
    return (outputs - outputs.mean(1, keepdim=True)) / outputs.std(1, keepdim=True).clamp(min=1e-3)
