"""Arguments of the explained model, for all rows or some of them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from captum_meta import _captum

Tensors = tuple[Tensor, ...]
_INDICES = (torch.int64, torch.int32)
"""Dtypes of several rows' indices; a single index may be any whole number."""


def real_beside(inputs: Tensors, baselines: tuple[Any, ...]) -> Tensors:
    """Inputs of whole numbers as real ones, in the default precision, where their baselines are no whole numbers.

    >>> real_beside((torch.tensor([[1, 2]]), torch.tensor([[3]])), (0.5, 1.0))
    (tensor([[1., 2.]]), tensor([[3]]))
    """
    return tuple(
        x.to(torch.get_default_dtype()) if not (x.is_floating_point() or x.is_complex() or _fits(b, x)) else x
        for x, b in zip(inputs, baselines, strict=True)
    )


def _fits(baseline: Any, x: Tensor) -> bool:
    """Whether a baseline is of whole numbers, as ``x`` is."""
    if not isinstance(baseline, Tensor):
        return not isinstance(baseline, float) or baseline.is_integer()
    return not baseline.is_floating_point() or bool((baseline == baseline.round()).all())


def fill(inputs: Tensors, baselines: tuple[Any, ...]) -> tuple[Tensors, Tensors]:
    """Inputs, real where their baselines are, and the baselines as tensors of their shapes.

    Raises:
        AssertionError: for baselines that fit no input.
        RuntimeError: for inputs of several numbers of rows.
    """
    assert len(inputs) == len(baselines), (
        f"There are {len(baselines)} baselines for {len(inputs)} inputs: pass one baseline for each input."
    )
    counts = [len(x) for x in inputs]
    if len(set(counts)) > 1:
        raise RuntimeError(
            f"inputs have {counts} rows: pass as many of each, and bind what belongs to no row to forward_func."
        )
    inputs, filled = real_beside(inputs, baselines), []
    for x, b in zip(inputs, baselines, strict=True):
        assert x.is_complex() or not (isinstance(b, Tensor) and b.is_complex()), (
            f"A baseline is of complex numbers ({b.dtype}), its input is not ({x.dtype}): pass inputs.to({b.dtype}), or the "
            "baseline's real part."
        )
        value = b.detach().to(x) if isinstance(b, Tensor) else torch.full_like(x[:1], b)
        try:
            filled.append(value.expand_as(x))
        except RuntimeError as error:
            raise AssertionError(
                f"A baseline of shape {tuple(value.shape)} does not fit an input of shape {tuple(x.shape)}: pass a number, "
                "one row, or one row for each example."
            ) from error
    return inputs, tuple(filled)


def take_target(target: Any, rows: Tensor, n_examples: int) -> Any:
    """The targets of the rows, for those that name one for each example."""
    if isinstance(target, list):
        assert len(target) == n_examples, (
            f"target has {len(target)} entries for {n_examples} examples: pass one index, or one for each example."
        )
        return [target[row] for row in rows.tolist()]
    if isinstance(target, Tensor) and target.numel() > 1:
        assert target.shape == (n_examples,), (
            f"Tensor target dimension {tuple(target.shape)} is not valid: pass one target for each of {n_examples} examples."
        )
        return target[rows.to(target.device)]
    if isinstance(target, Tensor) and target.shape == (1,) and n_examples == 1:
        return int(target.item()) if not target.is_floating_point() else target
    return target


@dataclass(frozen=True)
class Outputs:
    """A target that selects several outputs of each row.

    Attributes:
        indices: in the output's second dimension; None for all outputs, in the output's own shape.
    """

    indices: tuple[int, ...] | None = None

    def of(self, output: Tensor) -> Tensor:
        """The outputs selected, at least one dimension of them.

        Raises:
            TargetError: which is also an AssertionError, where there are no such outputs.
        """
        if output.dim() == 1:
            output = output.unsqueeze(-1)
        if self.indices is None or output.dim() == 0:
            return output
        if output.dim() != 2 or not all(-output.shape[1] <= index < output.shape[1] for index in self.indices):
            raise _KINDS[AssertionError](
                f"outputs={list(self.indices)} are not among the outputs of forward_func, of shape "
                f"({', '.join(['B', *map(str, output.shape[1:])])}): pass indices of its second dimension, or 'all'."
            )
        return output[:, list(self.indices)]


class TargetError(Exception):
    """A target selects nothing. The error raised is also of the type that Captum raises."""


_KINDS = {
    kind: type(kind.__name__, (TargetError, kind), {"__module__": "builtins"})
    for kind in (AssertionError, IndexError, RuntimeError, TypeError)
}


def select_outputs(output: Tensor, target: Any) -> Tensor:
    """The outputs that ``target`` selects, by Captum's rules.

    Raises:
        TargetError: which is also an AssertionError, IndexError, RuntimeError or TypeError, as Captum's is for this target.
    """
    if isinstance(target, Outputs):
        return target.of(output)
    try:
        _check_range(output, target)
        return _captum.select_targets(output, target)
    except tuple(_KINDS) as error:
        kind = next(kind for kind in _KINDS if isinstance(error, kind))
        outputs = f"the outputs of forward_func, of shape ({', '.join(['B', *map(str, output.shape[1:])])})"
        raise _KINDS[kind](f"{_shown(target)} selects nothing from {outputs}: {_remedy(output, target)}.") from error


def _check_range(output: Tensor, target: Any) -> None:
    """Checked beforehand, as an index out of range would make a GPU unusable for the process."""
    listed = isinstance(target, list) and all(isinstance(entry, int) for entry in target)
    indices = torch.tensor(target) if listed else target
    each = isinstance(indices, Tensor) and indices.dim() == 1 and len(indices) > 1
    if each and output.dim() == 2 and bool(((indices < 0) | (indices >= output.shape[1])).any()):
        raise RuntimeError("an index is out of range")


def _shown(target: Any) -> str:
    several = isinstance(target, list) or (isinstance(target, (Tensor, np.ndarray)) and math.prod(target.shape) != 1)
    return f"target, of type {type(target).__name__}," if several else f"target={target!r}"


def _remedy(output: Tensor, target: Any) -> str:
    """What to pass instead of a target that selects nothing."""
    entries = target if isinstance(target, list) else [target]
    if isinstance(target, (np.ndarray, np.generic)) or any(isinstance(entry, np.generic) for entry in entries):
        return "pass numbers of Python, such as target.tolist(), or torch.from_numpy(target)"
    one = isinstance(target, Tensor) and target.numel() == 1
    if isinstance(target, Tensor) and (target.is_floating_point() or not (one or target.dtype in _INDICES)):
        return f"its dtype is {target.dtype}, pass target.long()"
    if any(isinstance(entry, (float, str, bool)) for entry in entries):
        return f"{type(entries[0]).__name__} is no index, pass a whole number, such as int(target)"
    if output.dim() < 2:
        return "there is one number for each row, pass target=None"
    several = isinstance(target, (list, Tensor)) and not one
    if several and isinstance(target, Tensor) and target.dim() > 1:
        return "pass one index for each example, such as target.flatten()"
    if several and len(target) != len(output):
        return "pass one index, or one for each example"
    if output.dim() > 2:
        return f"pass a tuple of {output.dim() - 1} indices"
    most = output.shape[1] - 1
    if several:
        return f"pass an index from 0 to {most} for each example"
    return f"pass an index from 0 to {most}" + (
        "" if one or isinstance(target, int) else ", or a list of one for each example"
    )


def is_of_rows(value: Any, n_examples: int) -> bool:
    """Whether an additional argument has one entry for each example, as far as these can be taken apart."""
    if not isinstance(value, Tensor) or value.is_nested or value.layout not in (torch.strided, torch.sparse_coo):
        return False
    return value.dim() > 0 and len(value) == n_examples


def take_rows(value: Any, rows: Tensor, n_examples: int) -> Any:
    """The rows of an additional argument that has one entry for each example; others as they are."""
    return value.index_select(0, rows.to(value.device)) if is_of_rows(value, n_examples) else value
