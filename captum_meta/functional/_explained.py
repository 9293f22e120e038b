"""The explained model and the explanation method as the metrics call them: in chunks of rows, and left unchanged."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from captum_meta._model import unmoved_random_state, untouched
from captum_meta.functional._arguments import Tensors, as_tuple, check_count, check_finite, take_rows, widen
from captum_meta.functional._players import Players
from captum_meta.games import Batch


def pairs(
    n_rows: int, n_steps: int, max_rows: int, device: torch.device
) -> Iterator[tuple[Int64[Tensor, " N"], Int64[Tensor, " N"]]]:
    """All pairs of a row and a step, the row slowest, in chunks of at most ``max_rows``."""
    check_count(max_rows, "max_rows")
    for start in range(0, n_rows * n_steps, max_rows):
        chunk = torch.arange(start, min(start + max_rows, n_rows * n_steps), device=device)
        yield chunk // n_steps, chunk % n_steps


@dataclass(frozen=True)
class ExplainedModel:
    """``forward_func`` at inputs whose players are partly replaced by the baselines'."""

    batch: Batch
    players: Players

    @classmethod
    def of(
        cls,
        forward_func: Callable[..., Any],
        inputs: Tensors,
        baselines: Any,
        target: Any,
        additional_forward_args: Any,
        feature_mask: Tensors | None,
    ) -> ExplainedModel:
        """Read the arguments as Captum does."""
        parts = tuple(part.detach() for part in as_tuple(inputs, "inputs"))
        players = Players.of(parts, feature_mask)
        extra = () if additional_forward_args is None else additional_forward_args
        extra = extra if isinstance(extra, tuple) else (extra,)
        return cls(Batch(forward_func, parts, _expand_baselines(baselines, parts), target, extra, players), players)

    @property
    def inputs(self) -> tuple[Tensor, ...]:
        return self.batch.inputs

    @property
    def baselines(self) -> tuple[Tensor, ...]:
        return self.batch.baselines

    @property
    def n_rows(self) -> int:
        return len(self.batch)

    @property
    def device(self) -> torch.device:
        return self.batch.device

    def coalitions(self, rows: Int64[Tensor, " N"], keep: Bool[Tensor, "N M"]) -> Float[Tensor, " N"]:
        """Outputs ``(N,)`` of ``rows`` with only the players of ``keep`` ``(N, M)`` at the inputs' values."""
        return self.outputs(self.batch.mixed(rows, keep), rows)

    def outputs(self, inputs: tuple[Tensor, ...], rows: Int64[Tensor, " N"]) -> Float[Tensor, " N"]:
        """The selected outputs ``(N,)`` at ``inputs``, variants of ``rows``."""
        with torch.no_grad(), untouched(self.batch.forward_func, self.device):
            selected = self.batch.forward(inputs, rows).clone()  # the model may give the same memory again
        if selected.numel() != len(rows) or selected.dim() == 0:
            raise ValueError(
                f"target={self.batch.target!r} selects {tuple(selected.shape)} of what forward_func gave for {len(rows)} "
                "rows; a metric needs one number per row: pass a target that selects one."
            )
        selected = widen(selected).reshape(-1)
        check_finite(selected, "forward_func's output", rows)
        return selected


def _expand_baselines(baselines: Any, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    entries = (None,) * len(inputs) if baselines is None else baselines
    entries = entries if isinstance(entries, tuple) else (entries,)
    if len(entries) != len(inputs):
        raise ValueError(f"baselines has {len(entries)} entries for {len(inputs)} inputs: pass one for each.")
    return tuple(_expand_baseline(entry, part) for entry, part in zip(entries, inputs, strict=True))


def _expand_baseline(baseline: Any, part: Tensor) -> Tensor:
    tensor = torch.as_tensor(0 if baseline is None else baseline, dtype=part.dtype, device=part.device)
    try:
        return tensor.expand_as(part)
    except RuntimeError:
        raise ValueError(
            f"a baseline has shape {tuple(tensor.shape)} for inputs {tuple(part.shape)}: pass a number, or a tensor "
            "with 1 row or one for each row of the inputs."
        ) from None


@dataclass(frozen=True)
class ExplanationFunction:
    """``explanation_func`` with those of the arguments that it takes, at variants of the rows."""

    explanation_func: Callable[..., Any]
    inputs: tuple[Tensor, ...]
    players: Players
    arguments: dict[str, Any]

    @classmethod
    def of(
        cls,
        explanation_func: Callable[..., Any],
        inputs: Tensors,
        baselines: Any,
        target: Any,
        additional_forward_args: Any,
        feature_mask: Tensors | None,
    ) -> ExplanationFunction:
        """Leave out arguments that are None, and those that ``explanation_func`` does not have."""
        arguments = {"baselines": baselines, "target": target, "additional_forward_args": additional_forward_args}
        arguments["feature_mask"] = feature_mask
        if not callable(explanation_func):
            raise TypeError(f"{type(explanation_func).__name__} is not callable: pass a method's `attribute`, say.")
        # Lightning validates in inference mode, whose tensors no gradient method can use.
        with torch.inference_mode(False):
            parts = tuple(part.detach().clone() for part in as_tuple(inputs, "inputs"))
        taken = signature(explanation_func).parameters.values()
        names = {parameter.name for parameter in taken}
        anything = any(parameter.kind == Parameter.VAR_KEYWORD for parameter in taken)
        given = {k: v for k, v in arguments.items() if v is not None and (anything or k in names)}
        return cls(explanation_func, parts, Players.of(parts, feature_mask), given)

    @property
    def n_rows(self) -> int:
        return len(self.inputs[0])

    def __call__(self, inputs: tuple[Tensor, ...], rows: Int64[Tensor, " N"]) -> Float[Tensor, "N M"]:
        """The players' attributions ``(N, M)`` at ``inputs``, variants of ``rows``."""
        with torch.inference_mode(False), torch.enable_grad(), unmoved_random_state(inputs[0].device):
            variants = tuple(part.clone() for part in inputs)
            arguments = {name: self._argument(name, value, rows) for name, value in self.arguments.items()}
            explained = self.explanation_func(variants[0] if len(variants) == 1 else variants, **arguments)
        name = "what explanation_func returned"
        for part in as_tuple(explained, name):
            check_finite(part, name, rows)
        return self.players.take(rows).values(explained, name)

    def _argument(self, name: str, value: Any, rows: Int64[Tensor, " N"]) -> Any:
        value = value if name == "target" and isinstance(value, tuple) else take_rows(value, rows, self.n_rows)
        return value.clone() if isinstance(value, Tensor) and value.is_inference() else value

    def at_inputs(self, max_rows: int) -> Float[Tensor, "B M"]:
        """``(B, M)``, the attributions of the inputs themselves."""
        chunks = pairs(self.n_rows, 1, max_rows, self.inputs[0].device)
        return torch.cat([self(tuple(part[rows] for part in self.inputs), rows) for rows, _ in chunks])
