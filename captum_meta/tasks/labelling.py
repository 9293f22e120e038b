"""Labels of the rows of one explained model: by our own reference, or by any Captum method."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import torch
from captum.attr import LimeBase
from torch import Tensor

from captum_meta._model import module_of, untouched
from captum_meta.estimators import kernel_matrix, kernel_shapley_values, sample_coalitions
from captum_meta.evidence import Game
from captum_meta.evidence.rows import row_keys
from captum_meta.games.references import exact_shapley_values, path_mean

_EXACT_PLAYERS = 12
_COALITIONS = 32
_IG_POINTS, _IG_PIECES = 8, 12
_LABEL_TOLERANCE = 1e-2
_STRENGTH = 1e-6
_ROWS, _SHARED_PLAYERS = 8, 40
_EVALUATIONS = 512

Teacher = Callable[[Callable[..., Any]], Any]
"""From an explained model to a Captum method: a class such as ``KernelShap``, or a function that makes one."""


class LabelError(ValueError):
    """Rows that cannot be labelled: which, and why."""


@contextmanager
def evaluating(model: Callable[..., Any]) -> Iterator[None]:
    """Eval mode inside; the mode of each submodule is afterwards what it was, also when something raises."""
    module = module_of(model)
    modes = [] if module is None else [(part, part.training) for part in module.modules()]
    for part, _ in modes:
        part.training = False
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def shapley_reference(game: Game, seed: int) -> Tensor:
    """Shapley values ``(N, M)``: exact up to 12 players, beyond by paired KernelSHAP with 32 M coalitions per row."""
    rows = torch.arange(game.n_examples, device=game.device).split(_ROWS)
    game.at(torch.ones(1))
    apart = game.n_rows == game.n_examples and not game.together
    games = [game.take(some) for some in rows] if apart else [game]
    one_mask = len(game.players.mask) == 1
    if one_mask and game.players.count <= _EXACT_PLAYERS:
        return torch.cat([_exact(part) for part in games])
    if one_mask and game.players.count <= _SHARED_PLAYERS:
        ends = _ends(game).split([part.n_rows for part in games])  # of all rows at once: calls cost as much as a small model
        return torch.cat([by_shared_plan(part, number, ends[number]) for number, part in enumerate(games)])
    return torch.cat([_paired(part, seed) for part in games])


def _exact(game: Game) -> Tensor:
    def values(members: Tensor) -> Tensor:
        return _one_output(game.values(members.expand(game.n_rows, -1, -1)))

    return exact_shapley_values(values, game.players.count, game.device)


def _paired(game: Game, seed: int) -> Tensor:
    n_players = game.players.count
    budget = max(_COALITIONS * n_players, 2 ** min(n_players, _EXACT_PLAYERS) - 2)
    members, measured = sample_coalitions(game.mask, budget, seed, row_keys(game))
    worths, total = _worths(game, members, _ends(game))
    even = game.mask * (total / game.mask.sum(-1).clamp(min=1)).unsqueeze(-1)
    strength = torch.full_like(even, _STRENGTH)
    worths = worths.masked_fill(~measured, 0.0)
    return kernel_shapley_values(members, worths, measured, game.mask, total, even, strength)


def by_shared_plan(game: Game, part: int, ends: Tensor) -> Tensor:
    members, solution = (tensor.to(game.device) for tensor in shared_plan(game.n_rows, game.players.count, part))
    worths, total = _worths(game, members, ends)
    share = (total / game.players.count).unsqueeze(-1)
    beyond = worths - share * members.sum(-1)
    return share + (solution @ beyond.to(solution.dtype).unsqueeze(-1)).squeeze(-1).to(share.dtype)


def _ends(game: Game) -> Tensor:
    """f of baseline and input, ``(N, 2)``."""
    return _one_output(game.at(torch.tensor([0.0, 1.0])))


def _worths(game: Game, members: Tensor, ends: Tensor) -> tuple[Tensor, Tensor]:
    """f minus f(baseline) of the coalitions ``(N, S)``, and of all players together ``(N,)``."""
    return _one_output(game.values(members)) - ends[:, :1], ends[:, 1] - ends[:, 0]


@lru_cache(maxsize=32)
def shared_plan(n_rows: int, n_players: int, part: int) -> tuple[Tensor, Tensor]:
    """Coalitions ``(N, S, M)`` of the rows of part ``part`` of any task, and KernelSHAP on them ``(N, M, S)``.

    Tasks share plans, for planning and solving cost as much as a small model does.
    """
    everyone = torch.ones(n_rows, n_players, dtype=torch.bool)
    members, _ = sample_coalitions(everyone, _COALITIONS * n_players, 0, part * _ROWS + torch.arange(n_rows))
    return members, kernel_matrix(members, _STRENGTH)


def path_reference(game: Game, seed: int) -> Tensor:
    """Integrated Gradients ``(N, M)`` of every element by composite Gauss-Legendre quadrature with 96 gradients.

    Rows whose attributions then miss f(input) - f(baseline) by a hundredth of their norm are given eight times as many.
    """
    labels = composite(game, _IG_PIECES)
    ends = _ends(game)
    missed = (labels.sum(-1) - (ends[:, 1] - ends[:, 0])).abs() > _LABEL_TOLERANCE * labels.norm(dim=-1)
    if bool(missed.any()):
        labels[missed] = composite(game.take(missed.nonzero().flatten()), 8 * _IG_PIECES)
    return labels


def composite(game: Game, pieces: int) -> Tensor:
    def gradients(points: Tensor) -> Tensor:
        found = game.gradients(points)
        if found is None:
            raise LabelError("The model has no gradient, which path integrals are made of: choose kind='shapley'.")
        return _one_output(found[0])

    delta = game.difference
    return (path_mean(gradients, _IG_POINTS, pieces) * delta).to(delta.dtype)


def labelled(make: Teacher, arguments: Mapping[str, Any], game: Game, seed: int) -> Tensor:
    """Attributions ``(N, M)`` by the Captum method ``make(model)``; its random numbers follow from ``seed``.

    Methods that evaluate perturbations one at a time by default are asked to take many at once.

    Raises:
        LabelError: if the method raises, with the first row on which it does, or answers in other shapes.
    """
    try:
        return _labelled(make, arguments, game, seed)
    except Exception as error:
        row = _first_failing(make, arguments, game, seed) if game.n_rows == game.n_examples else None
        where = "on all rows together, though on none alone" if row is None else f"on row {row}"
        raise LabelError(f"the teacher raised {type(error).__name__} {where}: {error}") from error


def _labelled(make: Teacher, arguments: Mapping[str, Any], game: Game, seed: int) -> Tensor:
    method = make(game.batch.forward_func)
    known = inspect.signature(method.attribute).parameters
    offered: dict[str, Any] = {"target": game.batch.target, "additional_forward_args": game.batch.extra}
    offered["baselines"] = tuple(part.clone() for part in game.baselines)
    if game.players.groups is not None:
        shapes = (part.shape[1:] for part in game.inputs)
        offered["feature_mask"] = tuple(g.unflatten(1, shape) for g, shape in zip(game.players.groups, shapes, strict=True))
    together = 1 if isinstance(method, LimeBase) else game.n_examples  # KernelShap takes the rows one by one
    offered["perturbations_per_eval"] = max(1, _EVALUATIONS // together)
    chosen = {name: value for name, value in offered.items() if name in known} | dict(arguments)
    with untouched(game.batch.forward_func, game.device), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="You are providing multiple inputs for Lime")
        torch.manual_seed(seed)
        values = method.attribute(tuple(part.clone() for part in game.inputs), **chosen)
    return _of_players(values, game)


def _first_failing(make: Teacher, arguments: Mapping[str, Any], game: Game, seed: int) -> int | None:
    for row in range(game.n_rows):
        try:
            _labelled(make, arguments, game.take(torch.tensor([row], device=game.device)), seed)
        except Exception:
            return row
    return None


def _of_players(values: Any, game: Game) -> Tensor:
    """Attributions of the inputs' shapes, a group's value on each of its elements, as ``(N, M)``."""
    given = values if isinstance(values, tuple) else (values,)
    shapes = [tuple(part.shape) for part in given]
    expected = [tuple(part.shape) for part in game.inputs]
    if shapes != expected:
        raise LabelError(f"it gave attributions of shapes {shapes} for inputs of shapes {expected}")
    size = game.players.collect(tuple(torch.ones_like(part) for part in given)).clamp(min=1)
    return game.players.collect(tuple(part.detach() for part in given)) / size


def _one_output(worths: Tensor) -> Tensor:
    if worths.shape[-1] != 1:
        raise LabelError(f"The model has {worths.shape[-1]} outputs and none is selected: say which by the data's target.")
    return worths.squeeze(-1)
