"""What must hold of every random call: found again by enumeration and quadrature, in the plainest way."""

from __future__ import annotations

import copy
import math
import random
import warnings
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

import captum_meta.attr
from captum_meta.learners import MetaLearner, load_learner
from tests.attr.conftest import untrained
from tests.attr.random_calls import ALONE, Call, Parts
from tests.attr.random_references import captums, exact_path, exact_shapley

SHAPLEY = ("MetaKernelShap", "MetaShapleyValueSampling")
_RELATIVE = 1e-5
_ULPS = {"shapley": 32, "path": 512}
"""Units in the last place of f."""


class Layered(nn.Module):
    """The model behind a layer that hands its inputs on."""

    def __init__(self, model: nn.Module, n_inputs: int) -> None:
        super().__init__()
        self.layer, self.model, self.n_inputs = HandOn(), model, n_inputs

    def forward(self, *arguments: Any) -> Tensor:
        given = self.layer(*arguments[: self.n_inputs])
        parts = given if isinstance(given, tuple) else (given,)
        answer: Tensor = self.model(*parts, *arguments[self.n_inputs :])
        return answer


class HandOn(nn.Module):
    def forward(self, *parts: Tensor) -> Any:
        return tuple(part * 1 for part in parts) if len(parts) > 1 else parts[0] * 1


@lru_cache
def learner_for(name: str, kind: str) -> MetaLearner:
    return untrained(kind) if name == "untrained" else load_learner(None if name == "default" else name, kind)  # type: ignore


def learner_of(call: Call) -> str:
    return ("untrained", "zero-shot", "default")[call.number % 3]


def method_of(call: Call) -> Any:
    """The front end over the model of the call."""
    front_end = getattr(captum_meta.attr, call.front_end)
    learner = learner_for(learner_of(call), front_end.kind)
    if call.front_end == "MetaLayerIntegratedGradients":
        layered = Layered(call.model, len(call.inputs)).eval()
        return front_end(layered, layered.layer, learner=learner, **call.constructor)
    return front_end(call.model, learner=learner, **call.constructor)


def explain(call: Call) -> tuple[Parts, Tensor | None]:
    """Attributions, one for each input, and what was returned beside them."""
    found = method_of(call).attribute(call.given, **call.arguments)
    asked = call.arguments.get("return_convergence_delta") or call.arguments.get("return_error_estimate")
    values, beside = found if asked else (found, None)
    return (values if isinstance(values, tuple) else (values,)), beside


def faults_of(call: Call) -> list[str]:
    """What does not hold of the call, in words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            method_of(call)  # learners are read once
            before = state_of(call)
            values, beside = explain(call)
            kept = same(state_of(call), before)
            largest = call.model.largest_batch
            checks = [*_checks(call, values, beside, largest)]
        except Exception as error:
            return [f"{type(error).__name__}: {str(error)[:300]}"]
    faults = [f"{name}: {told}" if told else name for name, good, told in checks if not good]
    return faults if kept else ["state: the model, an input or a random state has changed", *faults]


Check = tuple[str, bool, str]


def _checks(call: Call, values: Parts, beside: Tensor | None, largest: int) -> Iterator[Check]:
    yield from _form(call, values)
    yield "finite", all(bool(part.isfinite().all()) for part in values), str(values)[:200]
    yield from _limits(call, largest)
    n_rows = len(call.inputs[0])
    if call.arguments.get("return_input_shape", True):
        flat = torch.cat([part.reshape(n_rows, -1).double() for part in values], dim=1)
        players = torch.zeros(n_rows, call.n_players, dtype=torch.float64).scatter(1, call.groups, flat)
        yield "groups: elements of one player differ", torch.equal(players.gather(1, call.groups), flat), ""
    else:
        players = values[0].double()
        if players.shape[1] != call.n_players:
            return
    scale = players.norm(dim=1)
    with torch.no_grad():
        outputs = [call.selected(side).double() for side in (call.inputs, call.baselines)]
    size = torch.stack(outputs).abs().amax(0).nan_to_num()
    rounding = _ULPS["shapley" if call.front_end in SHAPLEY else "path"] * _eps(call) * size * math.sqrt(call.n_players)
    yield from _dummies(call, players, rounding)
    summed = call.front_end != "MetaGradientShap" and call.constructor.get("multiply_by_inputs", True)
    if summed:
        missed = (players.sum(1) - (outputs[0] - outputs[1])).abs()
        efficient = missed <= 1e-4 * scale + rounding
        if call.model.kind in ("round", "additive") and call.front_end not in SHAPLEY:
            # Rounded players have no gradient. Where nobody knows what they do, Captum's answer is left as it is.
            efficient |= (players - captums(call)).abs().amax(1) <= 1e-4 * scale + rounding
        yield "efficiency", bool(efficient.all()), f"{missed.tolist()} of {scale.tolist()}"
    if call.front_end in SHAPLEY:
        yield from _shapley(call, players, beside, scale, rounding)
    elif call.front_end != "MetaGradientShap":
        yield from _path(call, players, values, beside, scale, rounding)
    if call.twins and _all_alike(call):
        apart = (players[:, 0] - players[:, 2]).abs()
        yield "symmetry", bool((apart <= 1e-4 * scale + rounding).all()), str(apart.tolist())
    yield from _other_calls(call, values, rounding)


def _dummies(call: Call, players: Tensor, rounding: Tensor) -> Iterator[Check]:
    """Players without effect get exactly 0; of an enumeration the model's own rounding.

    Unless no player of the row had a measured effect: what f has gained is then shared out among all.
    """
    allowed = rounding.unsqueeze(1) if _everything(call) else torch.zeros(1, 1)
    even = players.amax(1) - players.amin(1) <= 1e-6 * players.norm(dim=1)
    known = torch.ones_like(even) if call.front_end in SHAPLEY and _border(call) else ~even
    if call.model.kind in ("round", "additive") and call.front_end not in SHAPLEY:
        known &= exact_path(call, False).any(1)
    stepped = call.model.kind in ("tree", "conjunction", *ALONE) or not call.inputs[0].is_floating_point()
    if call.front_end in SHAPLEY and not _border(call):
        if stepped:
            return
        # Who is not read has no gradient: where there are too few coalitions for all of them, a warning says so.
        known &= call.budget == 0 or call.dead.sum(1) * 2 <= call.budget
    gone = call.dead.all(0) if call.model.kind in ALONE else call.dead  # such rows change with the others
    dead = torch.where(gone & known.unsqueeze(1), players.abs(), 0.0)
    yield "dummy", bool((dead <= allowed).all()), str(dead.amax().item())


def _border(call: Call) -> bool:
    """Whether every player's own coalitions have been evaluated."""
    return call.budget is None or call.budget >= min(2 * call.n_players, 2**call.n_players - 2)


def _everything(call: Call) -> bool:
    """Whether all coalitions may have been evaluated."""
    at_least = {None: 25 * call.n_players, 0: 2 * call.n_players}.get(call.budget, call.budget)
    return call.front_end in SHAPLEY and ("tolerance" in call.arguments or at_least >= 2**call.n_players - 2)


def _complete(call: Call) -> bool:
    return "tolerance" not in call.arguments and call.budget is not None and call.budget >= 2**call.n_players - 2


def _form(call: Call, values: Parts) -> Iterator[Check]:
    """Shapes and precisions."""
    if call.arguments.get("return_input_shape", True):
        shapes = [tuple(part.shape) for part in values]
        yield "shape", shapes == [tuple(part.shape) for part in call.inputs], str(shapes)
    else:
        yield "shape", values[0].dim() == 2 and len(values[0]) == len(call.inputs[0]), str(values[0].shape)
    wanted = [part.dtype if part.dtype == torch.float64 else torch.float32 for part in call.inputs]
    if call.arguments.get("return_input_shape", True):
        yield "dtype", [part.dtype for part in values] == wanted, str([part.dtype for part in values])


def _limits(call: Call, largest: int) -> Iterator[Check]:
    n_rows = len(call.inputs[0])
    for name, limit in (("perturbations_per_eval", n_rows), ("internal_batch_size", 1)):
        if name in call.arguments:
            yield name, largest <= max(n_rows, limit * call.arguments[name]), f"{largest} rows at once"


def _shapley(call: Call, players: Tensor, beside: Tensor | None, scale: Tensor, rounding: Tensor) -> Iterator[Check]:
    if beside is not None:
        yield "estimate's shape", tuple(beside.shape) == (len(players),), str(beside.shape)
        yield "estimate's sign", not bool((beside < 0).any()), str(beside)
    told = call.budget == 0 and "feature_mask" not in call.arguments and call.inputs[0].is_floating_point()
    additive = call.model.kind == "additive" and learner_of(call) == "untrained" and (told or _border(call))
    if not (_complete(call) or additive):
        return
    exact = exact_shapley(call)
    missed = (players - exact).abs().amax(1)
    yield "exact", bool((missed <= 1e-4 * exact.norm(dim=1) + rounding).all()), f"{missed.tolist()} of {exact.tolist()}"
    if beside is not None and _complete(call):
        yield "estimate of what is exact", bool((beside == 0).all()), str(beside)


def _path(
    call: Call, players: Tensor, values: Parts, beside: Tensor | None, scale: Tensor, rounding: Tensor
) -> Iterator[Check]:
    if beside is not None:
        method = method_of(call)
        given = {name: call.arguments.get(name) for name in ("target", "additional_forward_args")}
        attributions = values if len(values) > 1 else values[0]
        delta = method.compute_convergence_delta(attributions, call.baselines, call.inputs, **given)
        good = torch.allclose(beside.double(), delta.double(), rtol=1e-5, atol=float(rounding.max() + 1e-6 * scale.max()))
        yield "delta", good, f"{beside.tolist()} {delta.tolist()}"
    smooth = call.model.kind in ("smooth", "relu", "residual", "offset", "large", "small")
    if smooth and call.arguments.get("n_steps", 10) >= 50 and call.inputs[0].dtype in (torch.float32, torch.float64):
        exact = exact_path(call, call.constructor["multiply_by_inputs"])
        missed = (players - exact).norm(dim=1)
        least = rounding / (1.0 if call.constructor["multiply_by_inputs"] else 1 / 16)
        captum = captums(call)
        allowed = torch.maximum(0.03 * exact.norm(dim=1), 2 * (captum - exact).norm(dim=1)) + least
        yield "accuracy", bool((missed <= allowed).all()), f"{missed.tolist()} of {exact.tolist()}"


def _all_alike(call: Call) -> bool:
    """Whether nothing was sampled, so that players that are alike get alike."""
    if call.front_end not in SHAPLEY:
        return True
    budget = 2 * call.n_players if call.budget is None else call.budget
    return "tolerance" not in call.arguments and (budget in (0, 2 * call.n_players) or budget >= 2**call.n_players - 2)


def _other_calls(call: Call, values: Parts, rounding: Tensor) -> Iterator[Check]:
    """The same for the model times four, and for one row alone."""
    call.model.factor = 4.0
    scaled = explain(call)[0]
    call.model.factor = 1.0
    for part, other in zip(values, scaled, strict=True):
        size = part.double().flatten(1).norm(dim=1)
        missed = (part.double() - other.double() / 4).flatten(1).norm(dim=1)
        yield "scale", bool((missed <= _RELATIVE * size + rounding).all()), f"{missed.tolist()} of {size.tolist()}"
    n_rows = len(call.inputs[0])
    if n_rows == 1 or call.model.kind in ALONE:
        return
    row = call.number % n_rows
    alone = explain(row_of(call, row))[0]
    whole = torch.cat([part[row].double().flatten() for part in values])
    single = torch.cat([part[0].double().flatten() for part in alone])
    if len(whole) == len(single):
        missed_alone = float((whole - single).norm())
        good = missed_alone <= _RELATIVE * float(whole.norm()) + float(rounding[row])
        yield "a row alone", good, f"{missed_alone:.2g} of {float(whole.norm()):.2g}"


def row_of(call: Call, row: int) -> Call:
    """The call of one of its rows."""
    n_rows, rows = len(call.inputs[0]), slice(row, row + 1)

    def cut(value: Any) -> Any:
        if isinstance(value, tuple):
            return tuple(cut(part) for part in value)
        return value[rows] if isinstance(value, Tensor) and value.dim() > 0 and len(value) == n_rows else value

    one = copy.copy(call)
    one.inputs, one.baselines = cut(call.inputs), cut(call.baselines)
    one.arguments = dict(call.arguments)
    names = ["additional_forward_args", "feature_mask", *([] if call.front_end == "MetaGradientShap" else ["baselines"])]
    for name in names:
        if name in call.arguments:
            one.arguments[name] = cut(call.arguments[name])
    target = call.arguments["target"]
    many = isinstance(target, (list, Tensor)) and len(target) == n_rows
    one.arguments["target"] = target[rows] if many else target
    return one


def state_of(call: Call) -> list[Any]:
    """All that a call must leave as it is."""
    model, tensors = call.model, []
    for value in [*call.inputs, *call.arguments.values()]:
        tensors += [part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, Tensor)]
    state: list[Any] = [value.clone() for value in (*model.state_dict().values(), *tensors)]
    state += [torch.get_rng_state(), random.getstate(), np.random.get_state()[1].tolist(), torch.is_grad_enabled()]
    state += [(tensor.requires_grad, tensor.grad is None) for tensor in tensors]
    state += [(p.requires_grad, p.grad is None) for p in model.parameters()]
    return state + [
        (m.training, len(m._forward_hooks), len(m._forward_pre_hooks), len(m._backward_hooks)) for m in model.modules()
    ]


def same(now: list[Any], before: list[Any]) -> bool:
    pairs = zip(now, before, strict=True)
    return all(
        torch.equal(*(v.nan_to_num() for v in pair)) if isinstance(pair[0], Tensor) else pair[0] == pair[1] for pair in pairs
    )


def _eps(call: Call) -> float:
    return torch.finfo(torch.float64 if call.inputs[0].dtype == torch.float64 else torch.float32).eps
