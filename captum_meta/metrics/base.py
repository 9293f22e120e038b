"""What the metric classes share: the states, the reduction over rows, and a place for models that is no submodule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from captum_meta.functional._arguments import Tensors


class Outside:
    """Holds a model so that it is no submodule: not in ``state_dict``, not moved, and shared by clones."""

    def __init__(self, held: Any) -> None:
        self.held = held

    def __deepcopy__(self, memo: dict[int, Any]) -> Outside:
        return self


class ExplanationMetric(Metric):
    """A number per row, reduced over all rows seen.

    A subclass says which function scores the rows (``_score``) and with which ``options``.
    """

    is_differentiable = False
    full_state_update = False
    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")
    _score: ClassVar[Callable[..., Tensor]]

    def __init__(self, reduction: str, options: dict[str, Any] | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if reduction not in self.reductions:
            raise ValueError(f"reduction is {reduction!r}: pass one of {', '.join(map(repr, self.reductions))}.")
        self.reduction = reduction
        self.options = options or {}
        self._add_states()

    def _add_states(self) -> None:
        name = type(self).__name__.lower()
        self._values, self._total, self._weight = f"{name}_values", f"{name}_total", f"{name}_weight"
        if self.reduction == "none":
            self.add_state(self._values, [], dist_reduce_fx="cat")
        else:
            self.add_state(self._total, torch.tensor(0.0), dist_reduce_fx="sum")
            self.add_state(self._weight, torch.tensor(0.0), dist_reduce_fx="sum")
        # MetricCollection merges metrics whose states agree after one batch, such as two sensitivities of zero. NaN
        # agrees with nothing.
        self.add_state(f"{name}_unmerged", torch.tensor(torch.nan), dist_reduce_fx="mean")

    def _record(self, values: Tensor, weights: Tensor | None = None) -> None:
        values = values.to(self.dtype)
        if self.reduction == "none":
            getattr(self, self._values).append(values)
            return
        weight = values.numel() if weights is None else weights.to(self.dtype).sum()
        setattr(self, self._total, getattr(self, self._total) + values.sum())
        setattr(self, self._weight, getattr(self, self._weight) + weight)

    def compute(self) -> Tensor:
        """The reduction over all rows since the last reset."""
        if self.reduction == "none":
            values: Tensor | list[Tensor] = getattr(self, self._values)
            return torch.empty(0, device=self.device) if isinstance(values, list) and not values else dim_zero_cat(values)
        total: Tensor = getattr(self, self._total)
        return total if self.reduction == "sum" else total / getattr(self, self._weight)

    def plot(self, val: Tensor | Sequence[Tensor] | None = None, ax: Any = None) -> Any:
        """Plot ``val``, one or more computed values, or else the current one."""
        return self._plot(val, ax)


class ReferenceMetric(ExplanationMetric):
    """A metric of attributions against a reference."""

    def update(self, attributions: Tensors, reference: Tensors, feature_mask: Tensors | None = None) -> None:
        """Add rows."""
        self._record(type(self)._score(attributions, reference, feature_mask, **self.options, reduction="none"))


class ModelMetric(ExplanationMetric):
    """A metric of attributions on the explained model."""

    def __init__(self, forward_func: Callable[..., Any], reduction: str, options: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(reduction, options, **kwargs)
        self._forward_func = Outside(forward_func)

    def update(
        self,
        attributions: Tensors,
        inputs: Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Tensors | None = None,
    ) -> None:
        """Add rows."""
        arguments = (attributions, inputs, baselines, target, additional_forward_args, feature_mask)
        self._record(type(self)._score(self._forward_func.held, *arguments, **self.options, reduction="none"))


class MethodMetric(ExplanationMetric):
    """A metric of an attribution method, which it calls itself; ``explained`` is what its function takes first."""

    def __init__(self, explained: tuple[Any, ...], reduction: str, options: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(reduction, options, **kwargs)
        self._explained = Outside(explained)

    def update(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Tensors | None = None,
    ) -> None:
        """Add rows."""
        arguments = (inputs, baselines, target, additional_forward_args, feature_mask)
        self._record(type(self)._score(*self._explained.held, *arguments, **self.options, reduction="none"))
