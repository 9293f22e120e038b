"""Losses, hypergradients and networks in the JSON of a learner."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal, get_args

from torch import Tensor

import captum_meta.nn as networks
import captum_meta.optim as optim
from captum_meta import losses
from captum_meta.optim import Hypergradient

ExplanationLoss = Callable[[Tensor, Tensor, Tensor | None], Any]
"""From predicted attributions, reference and its variance or None, ``(T, K, M)`` each, to the mean loss of the tasks."""

LossName = Literal[
    "cosine_and_magnitude",
    "importance_cross_entropy",
    "mean_squared_error",
    "relative_squared_error",
    "scaled_squared_error",
]
"""Of :mod:`captum_meta.losses`; files and configurations name losses so."""

LossArgument = LossName | ExplanationLoss
"""A loss, or its name."""

HypergradientArgument = Hypergradient | Mapping[str, Any] | None
"""A hypergradient, the description of one by :func:`described_hypergradient`, or None for the learner's own."""


def loss_of(given: LossArgument) -> ExplanationLoss:
    """The loss of this name, or the function itself.

    Raises:
        ValueError: if :mod:`captum_meta.losses` has none of this name.

    >>> loss_of("mean_squared_error") is losses.mean_squared_error
    True
    """
    if not isinstance(given, str):
        return given
    if given not in get_args(LossName):
        raise ValueError(f"There is no loss {given!r}: pass a function, or one of {list(get_args(LossName))}.")
    loss: ExplanationLoss = getattr(losses, given)
    return loss


def described_loss(loss: ExplanationLoss, argument: str) -> str:
    """The name of the loss that was given as ``argument``.

    Raises:
        ValueError: if it is none of :mod:`captum_meta.losses`, so that a file could not name it.
    """
    for name in get_args(LossName):
        if getattr(losses, name) is loss:
            return str(name)
    raise ValueError(
        f"The {argument} is a function of your own ({getattr(loss, '__name__', loss)}), which a file cannot name: "
        "save learner.state_dict() and build the learner in your own code."
    )


def hypergradient_of(given: HypergradientArgument) -> Hypergradient | None:
    """The hypergradient itself, or from its description.

    >>> hypergradient_of({"class": "Truncated", "length": 5}).length
    5
    """
    if not isinstance(given, Mapping):
        return given
    arguments = {name: hypergradient_of(value) if isinstance(value, Mapping) else value for name, value in given.items()}
    found: Hypergradient = _built(optim, arguments, given)
    return found


def described_hypergradient(hypergradient: Hypergradient) -> dict[str, Any] | None:
    """Its class and arguments; None for one of your own, as trained learners need no hypergradient.

    >>> described_hypergradient(optim.Truncated(5))
    {'class': 'Truncated', 'length': 5, 'second_order': True}
    """
    kind = type(hypergradient)
    if getattr(optim, kind.__name__, None) is not kind:
        return None
    description: dict[str, Any] = {"class": kind.__name__}
    for name in inspect.signature(kind).parameters:
        value = getattr(hypergradient, name)
        description[name] = described_hypergradient(value) if isinstance(value, Hypergradient) else value
        if isinstance(value, Hypergradient) and description[name] is None:
            return None
    return description


def with_options(own: inspect.Signature, base: inspect.Signature) -> inspect.Signature:
    """A constructor's signature, with the base's arguments in place of ``**options``."""
    names = dict(own.parameters)
    if names.pop("options", None) is not None:
        names |= {n: p.replace(kind=p.KEYWORD_ONLY) for n, p in base.parameters.items() if n not in names}
    return own.replace(parameters=sorted((p for n, p in names.items() if n != "self"), key=lambda p: p.kind))


def part_of(description: Mapping[str, Any]) -> Any:
    """The network that :func:`described_part` describes, with fresh weights.

    >>> part_of({"class": "LearnedDescent", "steps": 7}).steps
    7
    """
    return _built(networks, dict(description), description)


def _built(room: Any, arguments: dict[str, Any], description: Mapping[str, Any]) -> Any:
    """An object of the class named in ``arguments``, from the other arguments.

    Raises:
        ValueError: if ``room`` has no such class, as where a configuration's ``init_args`` did not fit its ``class_path``.
    """
    kind = getattr(room, str(arguments.pop("class", "")), None)
    if not isinstance(kind, type):
        raise ValueError(
            f"{dict(description)} is not understood: pass an object of {room.__name__}; in a configuration its class_path, "
            "with init_args that the class takes (--model.learner.help CLASS shows what is taken)."
        )
    return kind(**arguments)


def described_part(name: str, part: Any) -> dict[str, Any]:
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
