"""Losses, hypergradients and networks as the JSON of a learner tells them."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor

import captum_meta.nn as networks
import captum_meta.optim as optim
from captum_meta import losses
from captum_meta.optim import Hypergradient

ExplanationLoss = Callable[[Tensor, Tensor, Tensor | None], Tensor]
"""From predicted attributions, reference and its variance or None, ``(T, K, M)`` each, to the mean loss of the tasks."""

LossArgument = ExplanationLoss | str
"""A loss, or the name of one of :mod:`captum_meta.losses`."""

HypergradientArgument = Hypergradient | Mapping[str, Any] | None
"""A hypergradient, what :func:`told_hypergradient` says of one, or None for the learner's own."""


def loss_of(given: LossArgument) -> ExplanationLoss:
    """The loss that is meant.

    Raises:
        ValueError: if :mod:`captum_meta.losses` has none of this name.

    >>> loss_of("mean_squared_error") is losses.mean_squared_error
    True
    """
    if not isinstance(given, str):
        return given
    if given not in _names():
        raise ValueError(f"There is no loss {given!r}: pass a function, or one of {_names()}.")
    loss: ExplanationLoss = getattr(losses, given)
    return loss


def told_loss(loss: ExplanationLoss) -> str:
    """Its name.

    Raises:
        ValueError: if it is none of :mod:`captum_meta.losses`, so that a file could not name it.
    """
    for name in _names():
        if getattr(losses, name) is loss:
            return name
    raise ValueError(
        f"The inner_loss is a function of your own ({getattr(loss, '__name__', loss)}), which a file cannot name: "
        "save learner.state_dict() and build the learner in your own code."
    )


def hypergradient_of(given: HypergradientArgument) -> Hypergradient | None:
    """The hypergradient that is meant.

    >>> hypergradient_of({"class": "Truncated", "length": 5}).length
    5
    """
    if not isinstance(given, Mapping):
        return given
    arguments = {name: hypergradient_of(value) if isinstance(value, Mapping) else value for name, value in given.items()}
    kind: type[Hypergradient] = getattr(optim, str(arguments.pop("class")))
    return kind(**arguments)


def told_hypergradient(hypergradient: Hypergradient) -> dict[str, Any] | None:
    """Its class and arguments; None for one of your own, since a trained learner does without.

    >>> told_hypergradient(optim.Truncated(5))
    {'class': 'Truncated', 'length': 5, 'second_order': True}
    """
    kind = type(hypergradient)
    if getattr(optim, kind.__name__, None) is not kind:
        return None
    told: dict[str, Any] = {"class": kind.__name__}
    for name in inspect.signature(kind).parameters:
        value = getattr(hypergradient, name)
        told[name] = told_hypergradient(value) if isinstance(value, Hypergradient) else value
        if isinstance(value, Hypergradient) and told[name] is None:
            return None
    return told


def part_of(told: Mapping[str, Any]) -> Any:
    """The network that :func:`told_part` told of, with fresh weights.

    >>> part_of({"class": "LearnedDescent", "steps": 7}).steps
    7
    """
    arguments = dict(told)
    return getattr(networks, arguments.pop("class"))(**arguments)


def told_part(name: str, part: Any) -> dict[str, Any]:
    """The class and the arguments of a network of :mod:`captum_meta.nn`.

    Raises:
        ValueError: if it is of another class, which a file could not name.
    """
    if getattr(networks, type(part).__name__, None) is not type(part):
        raise ValueError(
            f"The {name} is a {type(part).__name__} of your own, which a file of weights cannot name: "
            "save learner.state_dict() and build the learner in your own code."
        )
    return {"class": type(part).__name__, **part.arguments()}


def _names() -> list[str]:
    takes = ["predicted", "reference", "variance"]
    found = inspect.getmembers(losses, inspect.isfunction)
    of_attributions = [name for name, loss in found if list(inspect.signature(loss).parameters)[:3] == takes]
    return [name for name in of_attributions if name != "relative_errors"]
