"""Calls of the front ends drawn at random: models, inputs, masks, baselines, targets and budgets, by one number each.

``python -m tests.attr.random_calls MetaKernelShap 4711`` runs the call of this number again.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from tests.attr.random_models import Dice, Model

Parts = tuple[Tensor, ...]
KINDS = {
    "shapley": (
        *("smooth", "smooth", "relu", "relu", "residual", "round", "tree", "conjunction", "norm", "offset", "large"),
        *("small", "constant", "additive", "coupled", "fixed", "missing"),
    ),
    "path": ("smooth", "smooth", "relu", "relu", "residual", "round", "norm", "offset", "large", "small", "additive"),
}
ALONE = ("coupled", "fixed")
"""Kinds whose rows cannot be explained one by one."""
MASKS = ("none", "none", "shared", "spanning", "gaps", "per row", "ragged")
_SHAPES = ((1,), (2,), (3,), (4,), (2, 2), (1, 3))


@dataclass
class Call:
    """One call.

    Attributes:
        model, inputs, arguments: what is explained, and the keyword arguments besides ``inputs``.
        baselines: one tensor for each input, as the arguments mean them.
        groups: ``(B, E)``, the player of each element, numbered from 0.
        n_players: of all rows together.
        budget: coalitions of each row, where it is a Shapley front end; 2^M - 2 or more is all.
        dead: ``(B, M)`` bool, players of which the model reads nothing.
        twins: whether the first and the third player are alike.
        constructor: further arguments of the front end.
        is_tuple: whether the inputs are passed as a tuple.
    """

    front_end: str
    number: int
    model: Model
    inputs: Parts
    baselines: Parts
    groups: Tensor
    n_players: int
    arguments: dict[str, Any]
    dead: Tensor
    twins: bool = False
    budget: int | None = None
    constructor: dict[str, Any] = field(default_factory=dict)
    is_tuple: bool = False

    @property
    def given(self) -> Tensor | Parts:
        return self.inputs if self.is_tuple else self.inputs[0]

    def selected(self, parts: Parts, rows: slice = slice(None)) -> Tensor:
        """The explained output ``(B,)`` of the caller's own batch at other inputs."""
        extra = self.arguments.get("additional_forward_args")
        output = self.model(*parts, *(() if extra is None else extra if isinstance(extra, tuple) else (extra,)))
        target = self.arguments.get("target")
        flat = output.reshape(len(output), -1)
        if target is None:
            return flat[:, 0]
        per_row = target.tolist() if isinstance(target, Tensor) else target if isinstance(target, list) else [target]
        per_row = per_row * len(flat) if len(per_row) == 1 else per_row
        index = [entry if isinstance(entry, int) else entry[0] * self.model.output[1] + entry[1] for entry in per_row]
        return flat[torch.arange(len(flat)), torch.tensor(index)]

    def __str__(self) -> str:
        told = {name: value for name, value in self.arguments.items() if not isinstance(value, (Tensor, tuple))}
        shapes = [f"{tuple(part.shape)} {part.dtype}" for part in self.inputs]
        return f"{self.front_end} call {self.number}: {self.model.kind}, {shapes}, {self.n_players} players, {told}"


def draw(front_end: str, number: int, kinds: tuple[str, ...] | None = None) -> Call:
    """The call of this number."""
    dice = Dice(number)
    shapley = front_end in ("MetaKernelShap", "MetaShapleyValueSampling")
    kind = dice.pick(*(kinds or KINDS["shapley" if shapley else "path"]))
    n_rows = dice.pick(1, 2, 2, 3, 4)
    shapes = _shapes(dice)
    dtype = _dtype(dice, kind, shapley)
    inputs = tuple(dice.normal(n_rows, *shape).to(dtype) for shape in shapes)
    if kind == "missing":
        inputs = tuple(torch.where(part > 0.8, torch.nan, part.float()) for part in inputs)
    n_elements = sum(part[0].numel() for part in inputs)
    output = dice.pick((), (), (1,), (3,), (3,), (2, 2))
    model = Model(kind, n_elements, output, n_rows, dice).eval()
    dead = torch.tensor([dice.chance(0.15) for _ in range(n_elements)])
    model.live.data[dead] = 0.0
    baselines, starts = _baselines(dice, inputs, front_end)
    arguments: dict[str, Any] = {"target": _target(dice, output, n_rows)}
    if baselines is not None:
        arguments["baselines"] = baselines
    if dice.chance(0.3):
        arguments["additional_forward_args"] = _extra(dice, n_rows)
    masks = MASKS[:5] if kind == "coupled" else MASKS  # there players act on rows that do not have them
    groups, mask = _mask(dice, dice.pick(*masks) if shapley else "none", inputs)
    if mask is not None:
        arguments["feature_mask"] = mask
    n_players = int(groups.max()) + 1
    call = Call(
        front_end, number, model, inputs, starts, groups, n_players, arguments, _dead_players(dead, groups, n_players)
    )
    call.is_tuple = len(inputs) > 1 or dice.chance(0.2)
    if not call.is_tuple:
        for name in ("baselines", "feature_mask"):
            if isinstance(arguments.get(name), tuple):
                arguments[name] = arguments[name][0]
    if mask is None and n_elements > 1 and dice.chance(0.2):
        call.twins = _make_twins(call, dead)
    _BUDGETS[front_end](call, dice)
    return call


def _shapes(dice: Dice) -> list[tuple[int, ...]]:
    shapes = [dice.pick(*_SHAPES)]
    while dice.chance(0.35) and sum(torch.Size(shape).numel() for shape in shapes) < 4:
        shapes.append(dice.pick((1,), (2,)))
    return shapes


def _dtype(dice: Dice, kind: str, shapley: bool) -> torch.dtype:
    if kind == "missing":
        return torch.float32
    options = [torch.float32] * 5 + [torch.float64] * 3
    if kind in ("large", "small"):  # gradients of half precision would be infinite, or 0
        return dice.pick(*options)
    options += [torch.float16, torch.bfloat16]
    whole = [torch.int64, torch.int32] if shapley else []
    return dice.pick(*options, *whole)


def _baselines(dice: Dice, inputs: Parts, front_end: str) -> tuple[Any, Parts]:
    """What is passed, and what it means for each input and row."""
    n_rows = len(inputs[0])
    if front_end == "MetaGradientShap":
        count = dice.pick(1, 3, 5)
        given = tuple(dice.normal(count, *part.shape[1:]).to(part.dtype) for part in inputs)
        return given, tuple(part.mean(0, keepdim=True).expand(n_rows, *part.shape[1:]) for part in given)
    if dice.chance(0.3):
        return None, tuple(torch.zeros_like(part) for part in inputs)
    given, starts = [], []
    for part in inputs:
        way = dice.pick("number", "row", "rows")
        value: Any = dice.pick(0, 1, -1) if way == "number" else dice.normal(1 if way == "row" else n_rows, *part.shape[1:])
        value = value if way == "number" else value.to(part.dtype)
        given.append(value)
        starts.append(torch.as_tensor(value).to(part.dtype).expand_as(part).clone())
    return tuple(given), tuple(starts)


def _target(dice: Dice, output: tuple[int, ...], n_rows: int) -> Any:
    if output == ():
        return None
    if len(output) == 2:
        pairs = [(dice.pick(0, 1), dice.pick(0, 1)) for _ in range(n_rows)]
        return dice.pick(pairs[0], pairs)
    each = [dice.pick(*range(output[0])) for _ in range(n_rows)]
    return dice.pick(each[0], each, torch.tensor(each), torch.tensor(each[:1]))


def _extra(dice: Dice, n_rows: int) -> Any:
    """A weight of each row, ``(B, 1, 1, 1)``, or something that belongs to no row."""
    weights = 1.5 + dice.normal(n_rows, 1, 1, 1).abs() / 4
    return dice.pick(weights, (weights,), ("unread", weights), {"a": 1})


def _mask(dice: Dice, way: str, inputs: Parts) -> tuple[Tensor, Any]:
    n_rows, sizes = len(inputs[0]), [part[0].numel() for part in inputs]
    n_elements = sum(sizes)
    if way == "none":
        return torch.arange(n_elements).expand(n_rows, -1), None
    n_groups = dice.pick(*range(1, n_elements + 1))
    rows = n_rows if way in ("per row", "ragged") else 1
    ids = torch.tensor([[dice.random.randrange(n_groups) for _ in range(n_elements)] for _ in range(rows)])
    if way == "shared":
        ids = ids.sort(dim=1).values
    if way == "per row":
        ids = torch.stack([torch.tensor(dice.random.sample(range(n_elements), n_elements)) for _ in range(rows)]) % n_groups
    groups = ids.unique(return_inverse=True)[1]
    if way == "gaps":
        ids = 7 * ids + 3
    parts = ids.split(sizes, dim=1)
    mask = tuple(part.reshape(rows, *x.shape[1:]) for part, x in zip(parts, inputs, strict=True))
    return groups.reshape(rows, n_elements).expand(n_rows, -1), mask


def _dead_players(dead: Tensor, groups: Tensor, n_players: int) -> Tensor:
    """``(B, M)``, players of whom the model reads no element, or whom the row does not have."""
    alive = torch.zeros(len(groups), n_players, dtype=torch.long)
    return alive.scatter_add(1, groups, (~dead).long().expand_as(groups)) == 0


def _make_twins(call: Call, dead: Tensor) -> bool:
    """Make the first and the third element of the first input alike, where it has them."""
    part = call.inputs[0].reshape(len(call.inputs[0]), -1)
    if part.shape[1] < 3 or "baselines" in call.arguments or dead[0] or dead[2]:
        return False
    part[:, 2] = part[:, 0]
    call.model.first.data[2] = call.model.first.data[0]
    return True


def _shapley(call: Call, dice: Dice) -> None:
    n_players = call.n_players
    everything = 2**n_players - 2
    budgets = (
        None,
        0,
        3,
        max(1, 2 * n_players - 2),
        2 * n_players,
        2 * n_players + 4,
        everything,
        everything + 10,
        everything,
    )
    budget = dice.pick(*budgets)
    if call.front_end == "MetaShapleyValueSampling":
        budget = None if budget is None else -(-budget // n_players)
        call.budget = None if budget is None else budget * n_players
    else:
        call.budget = budget
    if budget is not None:
        call.arguments["n_samples"] = budget
    if dice.chance(0.3):
        call.arguments["perturbations_per_eval"] = dice.pick(1, 2, 5)
    if dice.chance(0.2):
        call.arguments["return_error_estimate"] = True
    if dice.chance(0.1):
        call.arguments["tolerance"] = dice.pick(1e-3, 0.1)
    if call.front_end == "MetaKernelShap" and dice.chance(0.1):
        call.arguments["return_input_shape"] = False


def _path(call: Call, dice: Dice) -> None:
    if dice.chance(0.8):
        call.arguments["n_steps"] = dice.pick(1, 2, 3, 5, 10, 20, 50, 64)
    if call.arguments.get("n_steps") != 1 and dice.chance(0.3):
        call.arguments["method"] = dice.pick("gausslegendre", "riemann_trapezoid", "riemann_middle")
    if dice.chance(0.3):
        call.arguments["internal_batch_size"] = dice.pick(1, 4, 7)
    if dice.chance(0.4):
        call.arguments["return_convergence_delta"] = True
    call.constructor["multiply_by_inputs"] = not dice.chance(0.15)


def _gradient_shap(call: Call, dice: Dice) -> None:
    if dice.chance(0.8):
        call.arguments["n_samples"] = dice.pick(1, 2, 5, 12)
    if dice.chance(0.3):
        call.arguments["stdevs"] = dice.pick(0.0, 0.1)
    if dice.chance(0.4):
        call.arguments["return_convergence_delta"] = True
    call.constructor["multiply_by_inputs"] = not dice.chance(0.15)


_BUDGETS = {
    "MetaKernelShap": _shapley,
    "MetaShapleyValueSampling": _shapley,
    "MetaIntegratedGradients": _path,
    "MetaLayerIntegratedGradients": _path,
    "MetaGradientShap": _gradient_shap,
}
FRONT_ENDS = tuple(_BUDGETS)

if __name__ == "__main__":
    from tests.attr.random_checks import faults_of

    found = draw(sys.argv[1], int(sys.argv[2]))
    print(found, *faults_of(found), sep="\n")
