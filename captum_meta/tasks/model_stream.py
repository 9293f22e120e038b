"""Explained models that come one after the other, such as a model that is retrained every day."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor

from captum_meta.tasks.model_family import ExplainedData, Model, ModelTaskFamily
from captum_meta.types import Explanations


class ModelStream:
    """A task family with one task per day: that day's model on that day's rows.

    Other than in a :class:`ModelTaskFamily`, days may differ in their rows, features and outputs. Where only the model
    changes, ``ModelTaskFamily(days, data, load=model_of_the_day)`` is a stream too.

    Args:
        explained: from the day, counted from 0, to the model and the rows that may be explained. It is called when the day's
            task is asked for, and must give the same again when it is asked again.
        days: how many there are.
        arguments: of :class:`ModelTaskFamily` for each day's task, such as ``rows=``, ``coalitions=`` and ``teacher=``.

    Raises:
        ValueError: if there are no days.

    >>> import torch
    >>> stream = ModelStream(lambda day: (torch.nn.Linear(3 + day, 1), torch.randn(20, 3 + day)), days=2, rows=8)
    >>> len(stream), stream.variants(1)[0].attributions.shape
    (2, torch.Size([1, 8, 4]))
    """

    def __init__(
        self, explained: Callable[[int], tuple[Model, Tensor | ExplainedData]], days: int, **arguments: Any
    ) -> None:
        if days < 1:
            raise ValueError(f"days is {days}: a stream has at least one.")
        self.explained, self.days, self.arguments = explained, days, arguments

    def __len__(self) -> int:
        return self.days

    def variants(self, index: int) -> list[Explanations]:
        """Views ``(1, rows, M)`` of the task of day ``index``: one, or for paths one for each number of points.

        Raises:
            LabelError: if the task cannot be labelled.
        """
        model, rows = self.explained(index)
        return ModelTaskFamily([model], rows, **self.arguments).variants(0)
