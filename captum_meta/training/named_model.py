"""Loads a model by its dotted name."""

from __future__ import annotations

from contextlib import suppress
from importlib import import_module
from inspect import Parameter, signature
from typing import Any

import torch


def load_model(name: str) -> Any:
    """The callable of ``package.module:name``; classes, and functions without arguments, are called to make it.

    Raises:
        ValueError: if there is none.
    """
    module, _, attribute = name.partition(":")
    if not attribute:
        raise ValueError(f"--model is {name!r}: pass package.module:callable, such as my_models:churn.")
    try:
        found: Any = import_module(module)
    except ModuleNotFoundError as error:
        raise ValueError(f"There is no module {error.name!r}: run the command where it can be imported from.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ValueError(f"{module} has no {attribute!r}: pass the model itself, or a function that makes it.")
        found = getattr(found, part)
    model = found() if _makes_a_model(found) else found
    if not callable(model):
        usual = [method for method in ("predict_proba", "predict") if hasattr(model, method)]
        instead = f"pass {module}:{attribute}.{usual[0]}" if usual else "pass the model itself, or a function that makes it"
        raise ValueError(f"{name} is a {type(model).__name__}, which cannot be called: {instead}.")
    return model.eval() if isinstance(model, torch.nn.Module) else model


def _makes_a_model(found: Any) -> bool:
    if isinstance(found, torch.nn.Module):
        return False
    with suppress(TypeError, ValueError):
        required = [p for p in signature(found).parameters.values() if p.default is Parameter.empty]
        return not [p for p in required if p.kind not in (Parameter.VAR_POSITIONAL, Parameter.VAR_KEYWORD)]
    return False
