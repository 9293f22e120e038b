"""Learners on disk: configuration as JSON, weights as safetensors; nothing is unpickled."""

from __future__ import annotations

import json
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

import captum_meta.learners as learners
import captum_meta.nn as networks
from captum_meta.learners.base import MetaLearner
from captum_meta.nn import Explainer
from captum_meta.types import Kind

EVIDENCE_VERSION = 1
"""Version of the evidence layout; weights of another version cannot read today's evidence."""

_DEFAULTS: dict[Kind, str] = {"shapley": "surrogate"}
"""What measures best in the mean after 16 rows on synthetic validation, where it is as safe; otherwise ridge."""


def save_learner(learner: MetaLearner, path: str | PathLike[str]) -> None:
    """Write ``path.json`` and ``path.safetensors``."""
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    config = {**configuration(learner), "weights": target.name + ".safetensors"}
    save_file({name: value.contiguous() for name, value in learner.state_dict().items()}, _with(target, ".safetensors"))
    _with(target, ".json").write_text(json.dumps(config, indent=2) + "\n")


def configuration(learner: MetaLearner) -> dict[str, Any]:
    """What :func:`build` makes a learner of the same form from, as JSON can hold it; its weights are not in it."""
    explainer = learner.explainer
    return {
        "evidence_version": EVIDENCE_VERSION,
        "kind": learner.kind,
        "learner": type(learner).__name__,
        "arguments": dict(learner.arguments()),
        "explainer": type(explainer).__name__,
        "explainer_arguments": dict(explainer.arguments()),
    }


def load_learner(name: str | PathLike[str] | None = None, kind: Kind = "shapley") -> MetaLearner:
    """Load a shipped learner by name, or a saved one by path.

    Args:
        name: a name of :func:`list_learners`; the path given to ``save``; None for the shipped default.
        kind: what it must predict, ``"shapley"`` or ``"path"``.

    Raises:
        ValueError: if there is no such learner, or it predicts another kind.

    >>> load_learner("zero-shot").kind
    'shapley'
    """
    names = list_learners(kind)
    requested = _DEFAULTS.get(kind, "ridge") if name is None else name
    if not isinstance(requested, (str, PathLike)):
        raise TypeError(
            f"A learner is a MetaLearner, a name or a path, got {requested!r}: pass one of {names}, the path that was given "
            "to learner.save(), or an object such as captum_meta.learners.Ridge(explainer)."
        )
    shipped = _shipped_folder() / f"{kind}-{requested}.json"
    path = shipped if isinstance(requested, str) and shipped.is_file() else _with(Path(requested), ".json")
    if not path.is_file():
        raise ValueError(
            f"There is no learner {str(requested)!r} for {kind} attributions: pass {f'one of {names}, or ' if names else ''}"
            "the path that was given to learner.save()."
        )
    config = json.loads(path.read_text())
    _check(config, path, kind)
    with torch.random.fork_rng(devices=[]):  # initial weights are drawn from the global stream, and overwritten
        learner = build(config)
    try:
        learner.load_state_dict(load_file(path.with_name(config["weights"])))
    except (FileNotFoundError, SafetensorError, RuntimeError) as error:
        raise ValueError(f"The weights {config['weights']} of {path} cannot be read ({error}): save them again.") from error
    return learner.eval().requires_grad_(False)


def shipped_explainer(name: str = "zero-shot", kind: Kind = "shapley") -> Explainer:
    """The explainer within a shipped learner, frozen: what metric-based learners correct and leave as it is.

    >>> shipped_explainer().kind
    'shapley'
    """
    return load_learner(name, kind).explainer


def list_learners(kind: Kind = "shapley") -> list[str]:
    """Names of the shipped learners that predict ``kind``.

    Raises:
        ValueError: if there is no such kind.

    >>> "zero-shot" in list_learners()
    True
    """
    if kind not in get_args(Kind):
        raise ValueError(f"There are no {kind!r} attributions: pass one of the kinds {list(get_args(Kind))}.")
    return sorted(path.stem.removeprefix(f"{kind}-") for path in _shipped_folder().glob(f"{kind}-*.json"))


def build(config: dict[str, Any]) -> MetaLearner:
    """A fresh learner of the form that :func:`configuration` told."""
    explainer: Explainer = getattr(networks, config["explainer"])(**config["explainer_arguments"])
    learner: MetaLearner = getattr(learners, config["learner"])(explainer, **config["arguments"])
    return learner


def _check(config: dict[str, Any], path: Path, kind: Kind) -> None:
    if config["evidence_version"] != EVIDENCE_VERSION:
        raise ValueError(
            f"{path} reads evidence of version {config['evidence_version']}, this release measures version "
            f"{EVIDENCE_VERSION}: train it again with `captum-meta fit`."
        )
    if config["kind"] != kind:
        raise ValueError(
            f"{path} predicts {config['kind']} attributions, but {kind} attributions are asked for: "
            f"pass a learner of kind {kind!r}, such as one of {list_learners(kind)}."
        )


def _with(path: Path, suffix: str) -> Path:
    return path if path.suffix == suffix else path.with_name(path.name + suffix)


def _shipped_folder() -> Path:
    return Path(str(resources.files("captum_meta"))) / "weights"
