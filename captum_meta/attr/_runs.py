"""Rows on their way through the levels of effort: through all for calibration, or until their bounds are accepted."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from captum_meta._numbers import TINY
from captum_meta._random import uniform
from captum_meta.attr._calibration import Calibration
from captum_meta.attr._calls import Call, Tensors, parts_of
from captum_meta.attr._compared import Compared, Errors, Lengths, Measure, bounds
from captum_meta.attr._difficulty import features_of
from captum_meta.attr._levels import Answer, climb
from captum_meta.games.players import join

_MOST_NUMBERS, _SUMS = 4096, 64


class Run:
    """What is known of a call's rows so far.

    Args:
        call: N rows.

    Attributes:
        parts: attributions, for each of their tensors ``(N, *shape)``; NaN where there are none yet.
        values: ``(N, M)`` float64, the same by player.
        counts: ``(N,)``, how many players each row has.
        form: an answer in the method's form.
    """

    parts: Tensors
    values: Tensor
    counts: Tensor
    form: Any

    def __init__(self, call: Call) -> None:
        self.call, self.inputs = call, call.player_inputs()
        self.started = False

    def add(self, rows: Tensor, answer: Answer) -> tuple[Tensor, Tensor]:
        """Keep the answers of the rows ``(R,)``; returns signals of their errors ``(R, S)`` and features ``(R, F)``."""
        self.begin(answer.form, answer.parts)
        before = self.values[rows]
        self.replace(rows, answer.parts)
        found = self.values[rows]
        spread = (found - before).norm(dim=1, keepdim=True).clamp(min=TINY).log()
        return torch.cat([answer.signals, spread], dim=1), features_of(found, self.inputs[rows])

    def begin(self, form: Any, parts: Tensors) -> None:
        """Allocate NaN in the form and the shapes of these answers, once."""
        if self.started:
            return
        self.started, self.form = True, form
        self.parts = tuple(part.new_full((len(self.call), *part.shape[1:]), torch.nan) for part in parts)
        self.values = self.call.values(self.parts)
        self.counts = self.call.counts(self.values)

    def replace(self, rows: Tensor, parts: Tensors) -> None:
        """Replace the answers of the rows ``(R,)``."""
        self.parts = tuple(old.index_copy(0, rows, new.detach().to(old)) for old, new in zip(self.parts, parts, strict=True))
        self.values = self.call.values(self.parts)


class BoundedRun(Run):
    """Rows that are finished as soon as their bounds are within a tolerance, or at once without one.

    Args:
        call: N rows.
        calibration, measure: of the bounds.
        tolerance: None for none.

    Attributes:
        scale: ``()``, between scores and bounds.
        limit: under a tolerance, the score up to which rows pass, ``()``.
        bounds: ``(N,)``, or ``(N, M)`` of players; 0 where the teacher has answered.
        accepted: ``(N,)`` bool.
    """

    def __init__(self, call: Call, calibration: Calibration, measure: Measure, tolerance: float | None) -> None:
        super().__init__(call)
        self.calibration, self.measure, self.tolerance = calibration, measure, tolerance
        if tolerance is None:
            self.scale = calibration.scale(measure)
        else:
            self.limit, self.scale = calibration.within(measure, tolerance)
        self.accepted = torch.zeros(len(call), dtype=torch.bool, device=call.device)

    def begin(self, form: Any, parts: Tensors) -> None:
        if not self.started:
            super().begin(form, parts)
            self.bounds = torch.zeros_like(self.values if self.measure == "players" else self.values[:, 0])

    def label(self, rows: Tensor, answer: Any) -> None:
        """The teacher's answer for the rows ``(R,)``, or for all of the call's."""
        parts = parts_of(answer)
        self.begin(answer, parts)
        self.replace(rows, tuple(part[rows] for part in parts) if len(parts[0]) > len(rows) else parts)
        self.bounds[rows[~self.values[rows].isfinite().all(1)]] = torch.nan

    def visit(self, level: int, rows: Tensor, answer: Answer) -> Tensor:
        """Which of the rows ``(R,)`` need no further level."""
        signals, features = self.add(rows, answer)
        scores = self.calibration.levels[level].scores(signals, features)
        found, counts = self.values[rows], self.counts[rows]
        accepted, scale = torch.ones_like(self.accepted[rows]), self.scale.expand(len(rows))
        if self.tolerance is not None:
            sizes = Lengths.of(found, counts).widths(self.measure, scores)
            accepted = (sizes <= self.limit) & found.isfinite().all(1)
            scale = torch.minimum(scale, self.tolerance / sizes)
        some = rows[accepted]
        self.bounds[some] = bounds(self.measure, scale[accepted], scores[accepted], found[accepted], counts[accepted])
        self.accepted[some] = True
        return accepted


def compared(call: Call, truth: Tensor) -> Compared:
    """The method's answers at every level beside the teacher's attributions ``(N, M)``."""
    run = Run(call)
    levels: list[Compared] = []
    content = content_of(call)

    def visit(level: int, rows: Tensor, answer: Answer) -> Tensor:
        signals, features = run.add(rows, answer)
        if run.values.shape != truth.shape:
            raise ValueError(
                f"The teacher's attributions have {truth.shape[1]} numbers per row and the method's {run.values.shape[1]}: "
                "pass attributions, or a teacher, of the same players."
            )
        here = torch.zeros_like(run.counts, dtype=torch.bool).index_fill(0, rows, True)
        values = torch.where(here.unsqueeze(1), run.values, torch.nan)
        signals, features = (
            part.new_zeros(len(call), part.shape[1]).index_copy(0, rows, part) for part in (signals, features)
        )
        errors, lengths = Errors.of(values, truth, run.counts), Lengths.of(values, run.counts)
        levels.append(Compared(errors, lengths, signals, features, content))
        return torch.zeros_like(rows, dtype=torch.bool)

    climb(call, visit)
    stacked = Compared.concatenate([part.map(lambda tensor: tensor.unsqueeze(1)) for part in levels], dim=1)
    return Compared(stacked.errors, stacked.lengths, stacked.signals, stacked.features, content)


def joined(parts: list[Compared]) -> Compared:
    """All rows; a level that some of them do not have holds NaN for these."""
    most = max(part.errors.distance.shape[1] for part in parts)

    def padded(part: Compared) -> Compared:
        missing = most - part.errors.distance.shape[1]

        def pad(tensor: Tensor) -> Tensor:
            return functional.pad(tensor, (0, 0) * (tensor.dim() - 2) + (0, missing), value=torch.nan)

        levels = {name: getattr(part, name) for name in ("errors", "lengths")}
        whole = {name: rows.map(pad) for name, rows in levels.items()}
        return Compared(**whole, signals=pad(part.signals), features=pad(part.features), content=part.content)

    return Compared.concatenate([padded(part) for part in parts])


def content_of(call: Call) -> Tensor:
    """Features of each row to compare it with others, ``(N, C)`` float64: its inputs, or random signed sums of many."""
    flat = join(tuple(part.detach().double() for part in call.inputs)).nan_to_num(0.0)
    if flat.shape[1] <= _MOST_NUMBERS:
        return flat
    indices = torch.arange(flat.shape[1], device=flat.device)
    signs = uniform(indices, (_SUMS,), 0).round() * 2 - 1  # Achlioptas 2003
    return flat @ signs / flat.shape[1] ** 0.5
