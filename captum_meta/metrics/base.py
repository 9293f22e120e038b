"""What the metric classes share: the states, the reduction over rows, and a place for models that is no submodule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from inspect import Parameter, Signature, signature
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

    A subclass says which function scores the rows (``_score``), and by ``update`` which of its arguments a batch has. The
    others are given to the constructor, whose signature follows from these two.

    Args:
        given: of the function, what a batch does not have and has no default, such as the explained model.
        options: its other arguments, ``reduction`` among them, and those of ``torchmetrics.Metric``.
    """

    is_differentiable = False
    full_state_update = False
    reductions: ClassVar[tuple[str, ...]] = ("mean", "sum", "none")
    _score: ClassVar[Callable[..., Tensor]]
    __signature__: ClassVar[Signature]

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        if hasattr(cls, "_score"):
            batch, every = signature(cls.update).parameters, signature(cls._score).parameters.values()
            further = Parameter("kwargs", Parameter.VAR_KEYWORD, annotation=Any)
            cls.__signature__ = Signature([*(p for p in every if p.name not in batch), further])

    def __init__(self, *given: Any, **options: Any) -> None:
        bound = self.__signature__.bind(*given, **options)
        super().__init__(**bound.arguments.pop("kwargs", {}))
        bound.apply_defaults()
        self.reduction: str = bound.arguments.pop("reduction")
        if self.reduction not in self.reductions:
            raise ValueError(f"reduction is {self.reduction!r}: pass one of {', '.join(map(repr, self.reductions))}.")
        self._given = Outside({name: value for name, value in bound.arguments.items() if name != "kwargs"})
        self._add_states()

    def _score_rows(self, **batch: Any) -> None:
        """Add the function's values of the rows of a batch."""
        self._record(type(self)._score(**self._given.held, **batch, reduction="none"))

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
        self._score_rows(attributions=attributions, reference=reference, feature_mask=feature_mask)


class ModelMetric(ExplanationMetric):
    """A metric of attributions on the explained model."""

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
        given = {"baselines": baselines, "target": target, "additional_forward_args": additional_forward_args}
        self._score_rows(attributions=attributions, inputs=inputs, feature_mask=feature_mask, **given)


class MethodMetric(ExplanationMetric):
    """A metric of an attribution method, which it calls itself."""

    def update(
        self,
        inputs: Tensors,
        baselines: Any = None,
        target: Any = None,
        additional_forward_args: Any = None,
        feature_mask: Tensors | None = None,
    ) -> None:
        """Add rows."""
        given = {"baselines": baselines, "target": target, "additional_forward_args": additional_forward_args}
        self._score_rows(inputs=inputs, feature_mask=feature_mask, **given)
