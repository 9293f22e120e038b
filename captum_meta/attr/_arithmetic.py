"""How our own networks are run: their precision, one thread at a time, and rows per pass."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from threading import RLock
from typing import TypeVar

import torch
from torch import Tensor

from captum_meta._model import without_autocast
from captum_meta.attr._units import InUnits, UnitState
from captum_meta.nn import Prediction
from captum_meta.nn.explainer import ELEMENTS_AT_ONCE
from captum_meta.types import Evidence

_Made = TypeVar("_Made", Tensor, Prediction)
_MAX_PAIRS, _MAX_MEMBERS = 2**22, 2**23
_LOCK = RLock()
if hasattr(os, "register_at_fork"):  # a child starts with the lock free, and no module has another task's weights
    os.register_at_fork(before=_LOCK.acquire, after_in_parent=_LOCK.release, after_in_child=_LOCK.release)


@contextmanager
def plain_arithmetic(device: torch.device) -> Iterator[None]:
    """For our own networks: without gradients, one thread at a time, as some learners put adapted weights into a module
    and take them out again, and in the tensors' precision where the explained model runs under autocast.
    """
    with _LOCK, torch.no_grad(), without_autocast(device):
        yield


@contextmanager
def explaining(device: torch.device) -> Iterator[None]:
    """:func:`plain_arithmetic` in inference mode, which saves a part of every small operation.

    What is made within is handed on as :func:`ordinary` tensors.
    """
    with torch.inference_mode(), plain_arithmetic(device):
        yield


@torch.inference_mode(False)
def ordinary(made: _Made) -> _Made:
    """A copy of tensors made in inference mode that users may differentiate by, and change in place."""
    return made.clone() if isinstance(made, Tensor) else made.map(torch.clone)


def explain_alone(learner: InUnits, state: UnitState | None, evidence: Evidence, with_bounds: bool) -> tuple[Tensor, Tensor]:
    """Attributions and bounds without a network."""
    with explaining(evidence.total.device):
        if with_bounds:
            pairs = [learner.explain_with_error(state, part) for part in chunks(evidence)]
            values, bounds = torch.cat([found.attributions for found, _ in pairs]), torch.cat([bound for _, bound in pairs])
        else:
            values = torch.cat([learner.explain(state, part).attributions for part in chunks(evidence)])
            bounds = torch.full_like(values[:, 0], torch.nan)
    return ordinary(values), ordinary(bounds)


def chunks(evidence: Evidence, elements_at_once: int = ELEMENTS_AT_ONCE) -> list[Evidence]:
    """Rows in parts of equal sizes that fit into memory, counted in players times path points, and in coalitions.

    Explainers work on fewer rows at once where matrices are large.
    """
    members = 0 if evidence.coalitions is None else evidence.coalitions.members.shape[1:].numel()
    return _parts(evidence, elements_at_once, _MAX_MEMBERS // max(1, members))


def chunks_for_matrices(evidence: Evidence) -> list[Evidence]:
    """The same for rows of which matrices over pairs of coalitions are made."""
    n_coalitions = 0 if evidence.coalitions is None else evidence.coalitions.members.shape[-2]
    return _parts(evidence, ELEMENTS_AT_ONCE, _MAX_PAIRS // max(1, n_coalitions**2))


def _parts(evidence: Evidence, elements_at_once: int, most: int) -> list[Evidence]:
    evidence = evidence.to(dtype=working_dtype(evidence.total))
    n_points = evidence.points.shape[-1]
    intervals = n_points + 1 if evidence.effects.shape[-1] == n_points else 1
    elements = intervals * max(1, evidence.players.shape[-1])
    most = max(1, min(elements_at_once // elements, most))
    n_rows = max(1, len(evidence.total))
    if most >= n_rows:
        return [evidence]
    rows = -(-n_rows // -(-n_rows // most))
    return [evidence[start : start + rows] for start in range(0, n_rows, rows)]


def working_dtype(values: Tensor) -> torch.dtype:
    """Double precision where the values have it, else single."""
    return torch.float64 if values.dtype == torch.float64 else torch.float32
