"""Checks of all front ends' arguments, before the model is run. Errors are of the types that Captum raises."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from functools import wraps
from inspect import signature
from numbers import Real
from typing import Any, TypeVar, cast

import numpy as np
from captum.attr import Attribution
from torch import Tensor, nn

from captum_meta._model import module_of, same_attention
from captum_meta._warnings import warn

_Method = TypeVar("_Method", bound=Callable[..., Any])
_RANDOM = (nn.modules.dropout._DropoutNd, nn.RReLU)
_JOINT = (nn.modules.batchnorm._BatchNorm,)


def checked(method: _Method) -> _Method:
    """Check the arguments of a front end's method by their names, and hand on whole numbers as ``int``."""
    names = list(signature(method).parameters)[1:]

    @wraps(method)
    def checking(self: Any, *arguments: Any, **named: Any) -> Any:
        given = {**dict(zip(names, arguments, strict=False)), **named}
        if len(given) < len(arguments) + len(named):
            return method(self, *arguments, **named)  # Python's own error names the surplus argument
        check_model(self.forward_func)
        for name in _CHECKS.keys() & given.keys():
            if given[name] is not None or name in _NEEDED:
                given[name] = _CHECKS[name](name, given[name])
        warn_of_train_mode(self, self.forward_func)
        with same_attention() if getattr(self, "kind", None) == "path" else nullcontext():
            return method(self, **given)

    return cast(_Method, checking)


def check_model(forward_func: object) -> None:
    """Raises ``TypeError`` for what cannot be called."""
    if not callable(forward_func):
        raise TypeError(
            f"forward_func is {_shown(forward_func)}, which cannot be called: pass the model itself, a torch.nn.Module or a "
            "function from tensors to a tensor."
        )


def check_tensors(name: str, value: Any) -> Any:
    """A tensor or a tuple of tensors; ``AssertionError`` for other things, ``TypeError`` for them within a tuple."""
    if value is None:
        raise TypeError(f"{name} is None: pass a tensor, or a tuple of tensors.")
    assert isinstance(value, (Tensor, tuple)), f"{name} is {_shown(value)}: pass {_remedy(name, value)}."
    for place, part in enumerate(value if isinstance(value, tuple) else ()):
        if not isinstance(part, Tensor):
            raise TypeError(f"{name}[{place}] is {_shown(part)}: pass {_remedy(f'{name}[{place}]', part)}.")
    return value


def check_baselines(name: str, value: Any) -> Any:
    """A tensor, a number, a tuple of them, or a function that gives them; ``AssertionError`` for other things."""
    if callable(value) and not isinstance(value, type):
        return value
    for place, part in enumerate(value if isinstance(value, tuple) else (value,)):
        called = f"{name}[{place}]" if isinstance(value, tuple) else name
        assert isinstance(part, (Tensor, int, float)), (
            f"{called} is {_shown(part)}: pass {_remedy(called, part)}, or a number for all elements."
        )
    return value


def check_feature_mask(name: str, value: Any) -> Any:
    """Tensors of whole numbers.

    Raises:
        AssertionError, TypeError: for what is no tensor.
        IndexError: for ids between whole numbers.
        ValueError: for ids that are not finite.
    """
    check_tensors(name, value)
    for mask in value if isinstance(value, tuple) else (value,):
        assert not mask.is_complex(), f"{name} has dtype {mask.dtype}: pass whole numbers, the group of each element."
        if mask.is_floating_point() and not bool(mask.isfinite().all()):
            raise ValueError(f"{name} has ids that are not finite: pass whole numbers, the group of each element.")
        if mask.is_floating_point() and bool((mask != mask.round()).any()):
            broken = mask[mask != mask.round()][0].item()
            raise IndexError(
                f"{name} has the id {broken:g}, which is no whole number: pass the group of each element, such as "
                f"{name}.round().long()."
            )
    return value


def check_target(name: str, value: Any) -> Any:
    """No ``bool``, which torch would take for a mask; the rest is checked against the model's output."""
    one = value.item() if isinstance(value, Tensor) and value.numel() == 1 else value
    assert not isinstance(one, bool), f"{name} is {value}, a bool: pass the index of the output, {name}={int(one)}."
    return value


def check_neuron(name: str, value: Any) -> Any:
    """What selects a neuron; ``TypeError`` where nothing does."""
    if value is None:
        raise TypeError(f"{name} is None: pass the index of a neuron, a tuple of indices and slices, or a function.")
    return value


def check_outputs(name: str, value: Any) -> str | list[int]:
    """ "all", or several whole numbers as a list; ``TypeError`` for other things, ``ValueError`` for an empty list."""
    if isinstance(value, str) and value == "all":
        return value
    try:
        assert not isinstance(value, str)
        indices = [check_whole(name, index) for index in value]
    except (AssertionError, TypeError) as error:
        raise TypeError(f"{name} is {_shown(value)}: pass 'all', or a list of indices, such as {name}=[0, 2].") from error
    if not indices:
        raise ValueError(f"{name} is empty: pass 'all', or a list of indices, such as {name}=[0, 2].")
    return indices


def check_whole(name: str, value: Any) -> int:
    """A whole number of any type, as ``int``; ``TypeError`` for other things."""
    try:
        assert not isinstance(value, (bool, np.bool_))
        return operator.index(value)
    except (AssertionError, TypeError) as error:
        raise TypeError(f"{name} is {_shown(value)}: pass a whole number{_nearest(name, value)}.") from error


def check_samples(name: str, value: Any) -> int:
    """A budget; ``TypeError`` for what is no whole number, ``ValueError`` for a negative one."""
    count = check_whole(name, value)
    if count < 0:
        raise ValueError(f"{name} must not be negative, got {count}: pass 0 to use gradients only, more to refine.")
    return count


def check_rows(name: str, value: Any) -> int:
    """How many rows are kept; ``TypeError`` for what is no whole number, ``ValueError`` for a negative one."""
    count = check_whole(name, value)
    if count < 0:
        raise ValueError(f"{name} must not be negative, got {count}: pass how many rows are kept, or 0 for none.")
    return count


def check_steps(name: str, value: Any) -> int:
    """A number of gradients; ``TypeError`` for what is no whole number, ``AssertionError`` below 1."""
    count = check_whole(name, value)
    assert count > 0, f"{name} is {count}: pass at least one gradient per row."
    return count


def check_limit(name: str, value: Any) -> int:
    """How many are evaluated at once; ``AssertionError`` for what is no positive whole number."""
    try:
        count = check_whole(name, value)
    except TypeError as error:
        raise AssertionError(str(error)) from error
    assert count > 0, f"{name} must be a positive whole number, got {count}: pass None to have it chosen."
    return count


def check_batch_size(name: str, value: Any) -> int:
    """How many rows are differentiated at once; a number below 1 is 1, as Captum raises it to what it needs."""
    return max(1, check_whole(name, value))


def check_tolerance(name: str, value: Any) -> float:
    """A positive number; ``TypeError`` for what is no number, ``ValueError`` for one that is not positive."""
    if isinstance(value, bool) or not (isinstance(value, Real) or (isinstance(value, Tensor) and value.numel() == 1)):
        raise TypeError(f"{name} is {_shown(value)}: pass the error that you accept, such as 0.01.")
    number = float(value)
    if math.isnan(number) or number <= 0:
        raise ValueError(f"{name} must be positive, got {number:g}: pass the error that you accept.")
    return number


def check_teacher(name: str, value: Any) -> Any:
    """None, or an object with an ``attribute`` method; ``TypeError`` for other things."""
    if value is None or isinstance(value, Attribution):
        return value
    if isinstance(value, type) or not callable(getattr(value, "attribute", None)):
        example = f"{value.__name__}(model)" if isinstance(value, type) else "captum.attr.KernelShap(model)"
        raise TypeError(f"{name} is {_shown(value)}: pass a Captum method over the same model, such as {example}.")
    return value


def check_layers(layer: object) -> None:
    """Raises ``TypeError`` for what is neither a module nor a list of modules."""
    for part in layer if isinstance(layer, list) else [layer]:
        if not isinstance(part, nn.Module):
            example = f", such as model.get_submodule({part!r})," if isinstance(part, str) else ""
            raise TypeError(f"layer is {_shown(part)}: pass the module itself{example} or a list of modules.")


def check_attributions(name: str, value: Any) -> Any:
    """A tensor, or a tuple of tensors; ``AssertionError`` for other things."""
    for part in value if isinstance(value, tuple) else (value,):
        assert isinstance(part, Tensor), f"{name} are {_shown(part)}: pass {_remedy(name, part)}."
    return value


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "inputs": check_tensors,
    "background": check_tensors,
    "baselines": check_baselines,
    "target": check_target,
    "feature_mask": check_feature_mask,
    "n_samples": check_samples,
    "neuron_selector": check_neuron,
    "n_steps": check_steps,
    "outputs": check_outputs,
    "tolerance": check_tolerance,
    "perturbations_per_eval": check_limit,
    "internal_batch_size": check_batch_size,
    "seed": check_whole,
    "teacher": check_teacher,
    "attributions": check_attributions,
}
_NEEDED = ("inputs", "neuron_selector", "seed")
"""Arguments for which None is not a default."""


def warn_of_train_mode(front_end: Any, model: Callable[..., Any]) -> None:
    """Once for each front end: a model that is random, or mixes its rows, because it is in train mode."""
    module = module_of(model)
    if module is None or front_end.__dict__.get("_warned_of_train_mode"):
        return
    training = [part for part in module.modules() if getattr(part, "training", False)]
    found = [(part, "answers at random") for part in training if _is_random(part)]
    found += [(part, "lets the rows of a batch act on each other") for part in training if isinstance(part, _JOINT)]
    if found:
        front_end._warned_of_train_mode = True
        part, what = found[0]
        warn(
            f"The model is in train mode, in which its {type(part).__name__} {what}: it is explained in this mode. "
            "Call model.eval() first, unless you mean that."
        )


def _is_random(module: nn.Module) -> bool:
    if isinstance(module, _RANDOM):
        return getattr(module, "p", 1.0) > 0
    return isinstance(module, (nn.RNNBase, nn.MultiheadAttention)) and module.dropout > 0


def _shown(value: object) -> str:
    """A value as a message shows it: whole if it is small, else its type and shape."""
    shape = getattr(value, "shape", None)
    if isinstance(value, type):
        return f"the class {value.__name__}"
    if shape is not None and shape != ():
        return f"of type {type(value).__name__} and shape {tuple(shape)}"
    text = repr(value)
    return f"{text} (of type {type(value).__name__})" if len(text) < 60 else f"of type {type(value).__name__}"


def _nearest(name: str, value: Any) -> str:
    """The nearest whole number, as a suggestion; empty for what is no number."""
    try:
        number = float(value)
    except (TypeError, ValueError, RuntimeError):
        return ""
    return f", such as {name}={round(number)}" if math.isfinite(number) else ""


def _remedy(name: str, value: Any) -> str:
    """What to pass in its place: how to convert it to tensors."""
    if hasattr(value, "to_numpy"):
        return f"torch.tensor({name}.to_numpy())"
    if isinstance(value, np.ndarray):
        return f"torch.from_numpy({name})"
    if isinstance(value, np.generic):
        return f"{name}.item()"
    if isinstance(value, Mapping):
        return f"a tuple of its tensors, such as tuple({name}.values())"
    if isinstance(value, (list, tuple)):
        return f"tuple({name})" if all(isinstance(part, Tensor) for part in value) else f"torch.tensor({name})"
    return "a tensor, or a tuple of tensors"
