"""The rows that a task family explains."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from torch import Tensor, nn

from captum_meta import _captum
from captum_meta._model import as_tensor, untouched
from captum_meta.games.arguments import take_rows, take_target

Model = Callable[..., Any]


@dataclass(frozen=True)
class ExplainedData:
    """Rows to be explained, with the arguments that their explanation needs.

    Attributes:
        inputs, baselines, feature_mask, additional_forward_args: as in Captum.
        target: ``"predicted"``, the class of the largest output (nothing to select where there is one output); a rule from
            the outputs ``(B, K)`` to the targets ``(B,)``; or as in Captum, for all rows.
        name: for messages.
    """

    inputs: Tensor | tuple[Tensor, ...]
    baselines: Any = None
    target: Any = "predicted"
    feature_mask: Any = None
    additional_forward_args: Any = None
    name: str = "data"

    def __len__(self) -> int:
        return len(_captum.format_tensor_into_tuples(self.inputs)[0])

    def take(self, rows: Tensor) -> ExplainedData:
        """Some of the rows."""
        count = len(self)
        target = self.target if callable(self.target) else take_target(self.target, rows, count)
        return self._changed(lambda tensor: take_rows(tensor, rows, count), target)

    def beside(self, model: Model) -> ExplainedData:
        """The same rows on the device of the model's weights; where they are if it has none."""
        weights = chain(model.parameters(), model.buffers()) if isinstance(model, nn.Module) else iter(())
        first = next(weights, None)
        if first is None:
            return self
        target = self.target.to(first.device) if isinstance(self.target, Tensor) else self.target
        return self._changed(lambda tensor: tensor.to(first.device), target)

    def outputs(self, model: Model) -> Tensor:
        """All outputs of the model for the rows."""
        inputs = _captum.format_tensor_into_tuples(self.inputs)
        extra = _captum.format_additional_forward_args(self.additional_forward_args)
        with torch.no_grad(), untouched(model, inputs[0].device):
            return as_tensor(_captum.run_forward(model, inputs, None, extra), inputs[0].device)

    def targets(self, model: Model) -> Any:
        """The target of each row, as Captum takes it."""
        if isinstance(self.target, str) and self.target == "predicted":
            outputs = self.outputs(model)
            if outputs.dim() != 2:
                return None
            return outputs.argmax(1) if outputs.shape[1] > 1 else 0
        return self.target(self.outputs(model)) if callable(self.target) else self.target

    def _changed(self, change: Callable[[Tensor], Tensor], target: Any) -> ExplainedData:
        def changed(value: Any) -> Any:
            if isinstance(value, tuple):
                return tuple(map(changed, value))
            return change(value) if isinstance(value, Tensor) else value

        parts = (self.inputs, self.baselines, self.feature_mask, self.additional_forward_args)
        inputs, baselines, mask, extra = map(changed, parts)
        return ExplainedData(inputs, baselines, target, mask, extra, self.name)
