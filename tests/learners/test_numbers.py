"""Arguments with which nothing could be computed are refused where they are given, and not after a run."""

import inspect
from collections.abc import Callable
from math import inf, nan
from typing import Any

import pytest

import captum_meta.learners as learners
import captum_meta.optim as optim
from captum_meta.learners import KernelRidge, MetaLearner, Stacking
from captum_meta.nn import CosineSimilarity, LearnedDescent, ShapleyExplainer
from captum_meta.optim import Backprop, FirstOrder

EXPLAINED = [
    kind
    for name in learners.__all__
    if inspect.isclass(kind := getattr(learners, name))
    and issubclass(kind, MetaLearner)
    and not inspect.isabstract(kind)
    and "explainer" in inspect.signature(kind).parameters
]
WRONG: dict[str, tuple[Any, ...]] = {
    "rate": (0.0, -0.1, nan, inf),
    "steps": (-1,),
    "momentum": (0.0, 1.0, nan),
    "clip": (0.0, -1.0, nan),
    "strength": (0.0, -1.0, nan),
    "zero_shot": (-1.0, nan),
    "confidence": (-1.0, nan),
    "features": (0, 7),
    "clusters": (0,),
    "neighbours": (0,),
}
ANY_SIGN = {("MetaSGD", "rate")}
"""Learned rates of either sign."""
CASES = [
    (kind, name, value)
    for kind in EXPLAINED
    for name, values in WRONG.items()
    for value in values
    if name in inspect.signature(kind).parameters and (kind.__name__, name) not in ANY_SIGN
]


@pytest.mark.parametrize(("kind", "name", "value"), CASES)
def test_learners_refuse_them(kind: type[MetaLearner], name: str, value: float) -> None:
    with pytest.raises(ValueError, match=rf"{name}.*: pass|{name} must be"):
        kind(ShapleyExplainer(8, 1), **{name: value})


@pytest.mark.parametrize("value", [nan, inf])
def test_rates_of_either_sign_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match=r"rate=.*: pass"):
        learners.MetaSGD(ShapleyExplainer(8, 1), rate=value)
    learners.MetaSGD(ShapleyExplainer(8, 1), rate=-0.1)


OTHERS: dict[str, Callable[[], Any]] = {
    "length": lambda: optim.Truncated(0),
    "length of segments": lambda: optim.Segmented(0),
    "length of windows": lambda: optim.PersistentES(0),
    "pairs": lambda: optim.PersistentES(2, pairs=0),
    "sigma": lambda: optim.PersistentES(2, sigma=0.0),
    "outer_steps": lambda: optim.Annealed(FirstOrder(), Backprop(), -1),
    "outer_steps of weights": lambda: optim.MultiStepLoss(0),
    "solver_steps": lambda: optim.Implicit(0),
    "temperature": lambda: CosineSimilarity(0.0),
    "steps": lambda: LearnedDescent(0),
    "confidence": lambda: Stacking(KernelRidge(ShapleyExplainer(8, 1)), confidence=-1.0),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_learners_are_made_of_refuses_them(name: str) -> None:
    with pytest.raises(ValueError, match=rf"{name.split()[0]}=.*: pass"):
        OTHERS[name]()
