"""Through which rooms of the package a target and a support set pass."""

import sys
from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

import captum_meta
from captum_meta.attr import MetaKernelShap
from captum_meta.types import Explanations

PACKAGE = Path(captum_meta.__file__).parent


def rooms(call: Callable[[], object], followed: Callable[[str, object], bool]) -> list[str]:
    """Rooms of the functions called, in order, that are given what is followed: from names and values of arguments."""
    found = []

    def profile(frame: Any, event: str, _: object) -> None:
        code, path = frame.f_code, Path(frame.f_code.co_filename)
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        ours = event == "call" and path.parent.parent == PACKAGE
        if ours and any(followed(name, frame.f_locals.get(name)) for name in names):
            found.append(path.parent.name)

    sys.setprofile(profile)
    try:
        call()
    finally:
        sys.setprofile(None)
    return [room for room, _ in groupby(found)]


def test_a_target_goes_to_the_game_and_a_support_set_to_the_learner() -> None:
    model, x = torch.nn.Sequential(torch.nn.Linear(5, 8), torch.nn.Tanh(), torch.nn.Linear(8, 3)), torch.randn(6, 5)
    attr = MetaKernelShap(model)
    assert rooms(lambda: attr.adapt(x, target=1), lambda _, value: isinstance(value, Explanations)) == ["attr", "learners"]
    assert rooms(lambda: attr.attribute(x, target=1), lambda name, _: name == "target") == ["attr", "games"]
