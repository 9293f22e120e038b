"""Calls of models that fail in one way of being called, and answer in another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._model import says_no_gradient
from captum_meta._warnings import warn
from captum_meta.games.arguments import TargetError
from captum_meta.games.players import Tensors

Place = Callable[[Tensor, Tensor], Tensors]
"""From rows ``(R,)`` and turns ``(R,)`` to the points at which they are evaluated."""
Run = Callable[[Tensors, Tensor], tuple[Tensor, ...]]
"""A computation on tensors that stand for some rows; f comes last."""
_RECORDING = ("cannot register a hook on a tensor that doesn't require gradient", "does not require grad")


class Attempts:
    """Calls of the explained model, and what has been learned of the ways in which it can be called.

    Services and large nets fail on many rows at once: they are given fewer. Models that differentiate themselves, or hang
    hooks on tensors, fail where no gradients are recorded: their inputs are recorded.

    Attributes:
        bearable: the most rows at once without a failure.
        recorded: whether it answers only while gradients are recorded; None before the first call.
    """

    def __init__(self, bearable: int) -> None:
        self.bearable = bearable
        self.recorded: bool | None = None

    def parts(
        self, run: Run, place: Place, rows: Tensor, turns: Tensor, limit: int, fewest: int, label: str | None = None
    ) -> list[tuple[Tensor, ...]]:
        """Run for rows and turns ``(R,)`` in parts of a limit, or in smaller ones where the model fails on so many.

        Raises:
            Exception: that of the first attempt, where parts of no more than the ``fewest`` rows fail, too.
        """
        parts = [part for part in zip(rows.split(limit), turns.split(limit), strict=True) if len(part[0])]
        return [found for some, turn in shown(parts, label) for found in self._halved(run, place, some, turn, fewest)]

    def _halved(self, run: Run, place: Place, rows: Tensor, turns: Tensor, fewest: int) -> Iterable[tuple[Tensor, ...]]:
        start, size, first = 0, min(len(rows), self.bearable), None
        limit = size
        while start < len(rows):
            some, turn = rows[start : start + size], turns[start : start + size]
            try:
                found = run(place(some, turn), some)
            except Exception as error:
                if size <= fewest or isinstance(error, TargetError) or says_no_gradient(error):
                    raise (first or error) from None
                limit = max(fewest, size // 2)
                size = fewest if first is None else limit  # a mistake fails on the fewest rows, too
                first = first or (error.with_traceback(None) if isinstance(error, torch.OutOfMemoryError) else error)
            else:
                start, size = start + size, limit
                yield found
        if first is not None:
            self.bearable = limit
            warn(
                f"forward_func failed on more than {limit} rows at once ({type(first).__name__}: {first}), so it is given "
                "no more: pass perturbations_per_eval=, or internal_batch_size= for paths, to say how many it takes."
            )

    def unrecorded(self, call: Callable[[Tensors, Tensor], Tensor], x: Tensors, rows: Tensor) -> Tensor:
        """The call on tensors that stand for some rows, without recording gradients unless the model needs it."""
        if self.recorded:
            return _recorded(call, x, rows)
        if self.recorded is False:
            return call(x, rows)
        kept = tuple(part.clone() for part in x)  # the model may work in place
        try:
            answer, self.recorded = call(x, rows), False
        except RuntimeError as error:
            if not any(sentence in str(error) for sentence in _RECORDING):
                raise
            answer, self.recorded = _recorded(call, kept, rows), True
        return answer


def _recorded(call: Callable[[Tensors, Tensor], Tensor], x: Tensors, rows: Tensor) -> Tensor:
    with torch.inference_mode(False), torch.enable_grad():
        leaves = (part.clone().requires_grad_() if part.is_floating_point() else part for part in x)
        return call(tuple(leaf.clone() for leaf in leaves), rows).detach()


def shown(parts: Sequence[Any], label: str | None) -> Iterable[Any]:
    """The parts, with a progress bar of this label."""
    return parts if label is None else _captum.progress(parts, desc=label)


def warn_of_gradients(error: Exception) -> None:
    """Warn that a model is explained from its values alone."""
    warn(
        f"forward_func could not be differentiated ({type(error).__name__}: {error}), so only its values are used, as of a "
        "model that has no gradient. For recurrent layers on CUDA call model.train() first, with dropout at 0."
    )


def warn_of_coupling(reason: str) -> None:
    """Warn that a model is evaluated on the caller's batch alone."""
    warn(
        f"forward_func does not answer for each of the rows alone ({reason}), so it is evaluated on the batch that "
        "you passed, with the same coalition for all rows, as Captum does. Rows may act on each other, or "
        "additional_forward_args of the batch's length belong to all of it: where they do not mean one entry for "
        "each row, bind them to forward_func (functools.partial)."
    )
