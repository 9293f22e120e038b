"""The journal of a benchmark of the user's own model, from which a stopped run goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_meta.benchmark.journal import read_lines
from captum_meta.benchmark.problem import Problem
from captum_meta.benchmark.references import Reference
from captum_meta.benchmark.report import Measurement


def taken_up(
    journal: Path | None, problem: Problem, kind: str
) -> tuple[Reference | None, dict[tuple[str, int], Measurement]]:
    """The reference and the results that a journal holds already."""
    entries = read_lines(journal) if journal is not None else []
    if not entries:
        return None, {}
    header = entries[0]
    now = header_of(problem, kind, None)
    same = "outputs" in header and header["digest"] == now["digest"]
    if not same or not np.allclose(header["outputs"], now["outputs"], rtol=1e-3, atol=1e-5):
        raise ValueError(
            f"{journal} holds results of another model, other rows, another kind or seed: pass another output, or delete it."
        )
    values, errors = (torch.tensor(header[key], device=problem.game().device) for key in ("values", "standard_error"))
    done = [Measurement(**entry) for entry in entries[1:]]
    return Reference(values, errors, header["method"]), {(m.method, m.budget): m for m in done}


def header_of(problem: Problem, kind: str, reference: Reference | None) -> dict[str, Any]:
    digest = hashlib.sha256(json.dumps([kind, problem.seed]).encode())
    _update(digest, [problem.arguments, problem.support or {}])
    outputs = problem.game().at(torch.tensor([0.0, 1.0])).double().flatten().tolist()
    entry: dict[str, Any] = {"digest": digest.hexdigest(), "outputs": outputs}
    if reference is not None:
        entry |= {"values": reference.values.tolist(), "standard_error": reference.standard_error.tolist()}
        entry["method"] = reference.method
    return entry


def _update(digest: Any, value: Any) -> None:
    if isinstance(value, Mapping):
        value = sorted(value.items())
    if isinstance(value, Tensor):
        digest.update(f"{value.dtype}{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    elif isinstance(value, (tuple, list)):
        for part in value:
            _update(digest, part)
    elif isinstance(value, (str, int, float, bool, type(None))):
        digest.update(repr(value).encode())
