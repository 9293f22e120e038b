"""Explain a table of any size with Lightning's Trainer: a batch at a time, on any number of processes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from captum.attr import Attribution
from lightning import LightningModule
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset, SequentialSampler

from captum_meta._model import module_of
from captum_meta.tasks.fingerprint import fingerprint

_BESIDE = {
    "return_error_estimate": "error_estimate",
    "return_error_bound": "error_bound",
    "return_convergence_delta": "convergence_delta",
}
"""Arguments of ``attribute`` that add further values per row to the attributions."""

_UNKNOWN = "not finite: the row has missing values, or f of it, or of its baseline, is not finite"


class WholeBatch(NamedTuple):
    """A batch of a loader whose batches are dealt to the processes of a run: its index, its rows' indices, its content."""

    number: int
    rows: list[int]
    content: Any


@dataclass  # not frozen: Lightning refuses to collect such
class ExplainedBatch:
    """The explanations of a batch.

    Attributes:
        number: index of the batch.
        count: B, its rows.
        rows: their indices in the data; None where the loader has none.
        values: by name, ``(B, ...)``, on the CPU: ``attributions`` (``attributions.0``, ... of several inputs) and what else
            was asked for; NaN for rows that raised; nothing where a callback had the batch already.
        errors: errors of rows, by index in the batch.
    """

    number: int
    count: int
    rows: list[int] | None
    values: dict[str, Tensor]
    errors: dict[int, str]


class AttributionPredictor(LightningModule):
    """Explains batches with ``Trainer.predict``, by any Captum method.

    A batch of the loader is a tensor of inputs; a pair of inputs and targets; or a mapping of arguments of
    ``method.attribute``, each with one entry for each row. A row on which the method raises is left out, with its error, and
    the rest of its batch is explained row by row; what raises on all rows before any was explained is a mistake in the call,
    and raised. A row whose attributions are not finite is listed too: its inputs have missing values, or the model's output
    is not finite. Gradients are enabled whatever the Trainer's ``inference_mode`` is, and modules are moved to the process's
    device and back.

    Args:
        method: any Captum method, ours included. With ``memory=``, what a row is explained by depends on the rows that its
            process has met.
        **arguments: of ``method.attribute``, the same for all batches, such as ``n_samples=100`` or
            ``return_error_estimate=True``.

    >>> from captum.attr import InputXGradient
    >>> from lightning import Trainer
    >>> predictor = AttributionPredictor(InputXGradient(lambda x: x[:, 0] ** 2))
    >>> loader = DataLoader(torch.tensor([[1.0], [2.0]]), batch_size=2)
    >>> trainer = Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    >>> trainer.predict(predictor, loader)[0].values["attributions"].tolist()
    [[2.0], [8.0]]
    """

    def __init__(self, method: Attribution, **arguments: Any) -> None:
        super().__init__()
        self.method, self.arguments = method, arguments
        self._explained_any = False

    def fingerprint(self) -> str:
        """A hash of the explained model's parameters and buffers, as they are now."""
        return fingerprint([part.detach() for part in self._parameters_of_model()])

    def on_predict_start(self) -> None:
        """Move the explained model to this process's device."""
        self._homes = [(part, part.device) for part in self._parameters_of_model()]
        for module in self._modules_of_model():
            module.to(self.device)

    def on_predict_end(self) -> None:
        """Move it back."""
        for part, home in self._homes:
            part.data = part.data.to(home)

    def predict_step(self, batch: Any, batch_idx: int) -> ExplainedBatch:
        """Explain a batch, unless a callback of the Trainer already has it (``has(number)``)."""
        number, rows, content = batch if isinstance(batch, WholeBatch) else (batch_idx, None, batch)
        named = _named(content)
        count = _count(named)
        if self._is_kept(number):
            return ExplainedBatch(number, count, rows, {}, {})
        with torch.inference_mode(False), torch.enable_grad():
            values, errors = self._explain(_cloned(named), count)
        self._explained_any = self._explained_any or len(errors) < count
        return ExplainedBatch(number, count, rows, values, errors)

    def _is_kept(self, number: int) -> bool:
        callbacks: list[Any] = self.trainer.callbacks
        return any(hasattr(callback, "has") and callback.has(number) for callback in callbacks)

    def _explain(self, named: dict[str, Any], count: int) -> tuple[dict[str, Tensor], dict[int, str]]:
        try:
            values = self._attribute(named)
            return values, _not_finite(values, count)
        except Exception as error:
            if count == 1 and not self._explained_any:
                raise
            first = error
        found: dict[int, dict[str, Tensor]] = {}
        errors: dict[int, str] = {}
        for row in range(count):
            try:
                found[row] = self._attribute(_taken(named, slice(row, row + 1), count))
            except Exception as error:
                errors[row] = f"{type(error).__name__}: {error}"
        if not found and not self._explained_any:
            raise first
        values = _joined(found, named, count)
        return values, {**_not_finite(values, count), **errors}

    def _attribute(self, named: dict[str, Any]) -> dict[str, Tensor]:
        answer = self.method.attribute(**{**self.arguments, **named})
        beside = [name for argument, name in _BESIDE.items() if self.arguments.get(argument)]
        extra = {}
        if beside:
            answer, number = answer
            extra[beside[0]] = number.detach().cpu()
        found, count = (answer if isinstance(answer, Tensor) else answer[0]), _count(named)
        if len(found) != count:
            raise ValueError(
                f"{self.method.get_name()} gave {len(found)} explanations of {count} rows: the model answers for the whole "
                "batch at once. Pass one that gives an output for each row."
            )
        if isinstance(answer, Tensor):
            return {"attributions": answer.detach().cpu(), **extra}
        return {**{f"attributions.{i}": part.detach().cpu() for i, part in enumerate(answer)}, **extra}

    def _modules_of_model(self) -> list[nn.Module]:
        module = module_of(getattr(self.method, "forward_func", None))
        return [] if module is None else [module]

    def _parameters_of_model(self) -> Iterator[Tensor]:
        for module in self._modules_of_model():
            yield from module.parameters()
            yield from module.buffers()


class _Dealt(IterableDataset[WholeBatch]):
    """The batches of a loader, dealt in turn to the processes of a run."""

    def __init__(self, loader: DataLoader[Any]) -> None:
        self.loader = loader

    def __iter__(self) -> Iterator[WholeBatch]:
        joined = torch.distributed.is_available() and torch.distributed.is_initialized()
        rank, count = (torch.distributed.get_rank(), torch.distributed.get_world_size()) if joined else (0, 1)
        assert self.loader.batch_sampler is not None
        for number, rows in enumerate(self.loader.batch_sampler):
            if number % count == rank:
                yield WholeBatch(number, list(rows), self.loader.collate_fn([self.loader.dataset[row] for row in rows]))


def whole_batches(loader: DataLoader[Any]) -> DataLoader[WholeBatch]:
    """The batches of a loader, dealt whole to the processes of a run, so that these explain what one process would.

    Samplers of Lightning deal single rows instead: then a row is computed beside others, and rounded as they require.

    Raises:
        ValueError: if the loader has no batches of its dataset's rows, or not in their order.
    """
    if isinstance(loader.dataset, IterableDataset) or loader.batch_sampler is None:
        raise ValueError("The loader's dataset has no numbered rows: pass a DataLoader over a dataset with a length.")
    if not isinstance(loader.sampler, SequentialSampler):
        raise ValueError(
            f"The loader gives its rows by a {type(loader.sampler).__name__}, but explanations are kept in the order of the "
            "data: pass shuffle=False."
        )
    return DataLoader(_Dealt(loader), batch_size=None)


def is_dealt(loader: Any) -> bool:
    """Whether a loader is one of :func:`whole_batches`."""
    return isinstance(getattr(loader, "dataset", None), _Dealt)


def _named(content: Any) -> dict[str, Any]:
    """A loader's batch as arguments of ``attribute``."""
    if isinstance(content, Mapping):
        if "inputs" not in content:
            raise ValueError(f"The batch has {sorted(content)}: it needs inputs, the rows to be explained.")
        return dict(content)
    if isinstance(content, Tensor):
        return {"inputs": content}
    if isinstance(content, (tuple, list)) and len(content) in (1, 2):
        return dict(zip(("inputs", "target"), content, strict=False))
    raise ValueError(
        f"The batch is a {type(content).__name__}: give a tensor of inputs, a pair of inputs and targets, or a dictionary "
        "of arguments of attribute, such as {'inputs': x, 'baselines': b, 'target': y}."
    )


def _count(named: dict[str, Any]) -> int:
    inputs = named["inputs"]
    return len(inputs if isinstance(inputs, Tensor) else inputs[0])


def _not_finite(values: dict[str, Tensor], count: int) -> dict[int, str]:
    """Errors for rows whose attributions are not finite, by index in the batch."""
    parts = [value for name, value in values.items() if name.startswith("attributions") and len(value) == count]
    finite = [part.flatten(1).isfinite().all(1) for part in parts if part.numel()]
    broken = torch.stack(finite).all(0).logical_not().nonzero().flatten().tolist() if finite else []
    return dict.fromkeys(broken, _UNKNOWN)


def _cloned(named: dict[str, Any]) -> dict[str, Any]:
    """Tensors that gradients may be taken of, lists of tensors as tuples, as Captum wants them."""

    def clone(value: Any) -> Any:
        if isinstance(value, (tuple, list)) and value and all(isinstance(part, Tensor) for part in value):
            return tuple(clone(part) for part in value)
        return value.clone() if isinstance(value, Tensor) else value

    return {name: clone(value) for name, value in named.items()}


def _taken(named: dict[str, Any], rows: slice, count: int) -> dict[str, Any]:
    """Some rows of the arguments that have one entry for each row."""

    def take(value: Any) -> Any:
        if isinstance(value, tuple) and all(isinstance(part, Tensor) for part in value):
            return tuple(take(part) for part in value)
        has_rows = (isinstance(value, Tensor) and value.dim() > 0) or isinstance(value, list)
        return value[rows] if has_rows and len(value) == count else value

    return {name: take(value) for name, value in named.items()}


def _joined(found: dict[int, dict[str, Tensor]], named: dict[str, Any], count: int) -> dict[str, Tensor]:
    """Rows that were explained one by one, and NaN for the others."""
    if not found:
        inputs = named["inputs"]
        parts = {"attributions": inputs} if isinstance(inputs, Tensor) else dict(enumerate(inputs))
        names = {name if isinstance(name, str) else f"attributions.{name}": part for name, part in parts.items()}
        return {name: torch.full(part.shape, torch.nan) for name, part in names.items()}
    like = next(iter(found.values()))
    joined = {}
    for name, one in like.items():
        joined[name] = torch.full((count, *one.shape[1:]), torch.nan, dtype=one.dtype)
        for row, values in found.items():
            joined[name][row] = values[name][0]
    return joined
