"""Learners on disk: configuration as JSON, weights as safetensors; nothing is unpickled."""

from __future__ import annotations

import inspect
import json
import sys
from contextlib import nullcontext
from functools import lru_cache
from importlib import resources
from os import PathLike
from pathlib import Path
from typing import Any, get_args

import torch
from torch import Tensor

import captum_meta.nn as networks
from captum_meta.learners import _files
from captum_meta.learners.base import MetaLearner
from captum_meta.nn import Explainer
from captum_meta.types import Kind

learners = sys.modules[__package__]
"""This package, in which classes are looked up by name; to import it from here would be a cycle."""

EVIDENCE_VERSION = 1
"""Version of the evidence layout; weights of another version cannot read today's evidence."""

_FORM = ("learner", "arguments", "explainer", "explainer_arguments")
"""What :func:`build` reads of a configuration."""

_DEFAULTS: dict[Kind, str] = {"shapley": "surrogate"}
"""Lowest mean error after 16 rows on synthetic validation, without more models made worse; else ridge."""
_RENAMED = {"caution": "confidence"}
"""Arguments of learners that files of version 0.2 name otherwise."""


def save_learner(learner: MetaLearner, path: str | PathLike[str]) -> None:
    """Write ``path.json`` and ``path.safetensors``; ``path`` may end in either.

    Raises:
        ValueError: if it has parts of your own, which a file cannot name, or weights that are not finite.
    """
    _files.write(_files.stem(Path(path)), configuration(learner), learner.state_dict())


def configuration(learner: MetaLearner) -> dict[str, Any]:
    """What :func:`build` makes a learner of the same form from, as JSON can hold it; its weights are not in it.

    Raises:
        ValueError: if it has parts of your own, which a file cannot name.
    """
    explainer = learner.explainer
    for what, part, room in (("learner", learner, learners), ("explainer", explainer, networks)):
        if getattr(room, type(part).__name__, None) is not type(part):
            raise ValueError(
                f"The {what} is a {type(part).__name__} of your own, which a file of weights cannot name: "
                "save learner.state_dict() and build the learner in your own code."
            )
    return {
        "evidence_version": EVIDENCE_VERSION,
        "kind": learner.kind,
        "learner": type(learner).__name__,
        "arguments": {name: _form(value) for name, value in learner.arguments().items()},
        "explainer": type(explainer).__name__,
        "explainer_arguments": dict(explainer.arguments()),
    }


def _form(value: Any) -> Any:
    """A learner within another one, as JSON can hold it."""
    if not isinstance(value, MetaLearner):
        return value
    description = configuration(value)
    return {name: description[name] for name in ("learner", "arguments")}


def load_learner(name: str | PathLike[str] | None = None, kind: Kind = "shapley") -> MetaLearner:
    """Load a shipped learner by name, or a saved one by path.

    Args:
        name: a name of :func:`list_learners`; the path given to ``save``; None for the shipped default.
        kind: what it must predict, ``"shapley"`` or ``"path"``.

    Raises:
        ValueError: if there is no such learner, it predicts another kind, or one of its files is not what was saved.

    >>> load_learner("zero-shot").kind
    'shapley'
    """
    _check_kind(kind)
    requested = _DEFAULTS.get(kind, "ridge") if name is None else name
    if not isinstance(requested, (str, PathLike)):
        raise TypeError(
            f"A learner is a MetaLearner, a name or a path, got {requested!r}: pass one of {list_learners(kind)}, the path "
            "that was given to learner.save(), or an object such as captum_meta.learners.Ridge(explainer)."
        )
    shipped = _shipped_folder() / f"{kind}-{requested}.json"
    path = shipped if isinstance(requested, str) and shipped.is_file() else _files.json_of(_files.stem(Path(requested)))
    if not path.is_file():
        names = list_learners(kind)
        raise ValueError(
            f"There is no learner {str(requested)!r} for {kind} attributions: pass {f'one of {names}, or ' if names else ''}"
            f"the path that was given to learner.save(){_files.missing(Path(requested))}."
        )
    config = _files.read_config(path)
    _check(config, path, kind)
    return _read(config, path).eval().requires_grad_(False)


def _read(config: dict[str, Any], path: Path) -> MetaLearner:
    """The learner with its weights."""
    file = path.with_name(config["weights"])
    parts = {"": file, **({"base.": path.with_name(config["base_weights"])} if "base_weights" in config else {})}
    if path.parent != _shipped_folder():
        _check_form(config, path, parts)
    weights = _files.read_weights(file, config.get("sha256"))
    for name, value in _files.read_weights(parts["base."], None).items() if "base." in parts else ():
        weights["base." + name] = value
    # initial weights are drawn from the global stream, and overwritten
    with (
        torch.random.fork_rng(devices=[]),
        nullcontext() if torch.get_default_device().type == "cpu" else torch.device("cpu"),
    ):
        learner = build(config)
    learner.load_state_dict(weights)
    return learner


def _check_form(config: dict[str, Any], path: Path, parts: dict[str, Path]) -> None:
    """That the weights fit the learner, of which nothing large is allocated before.

    Of what is shipped this is known. On the meta device torch draws normal numbers by way of its compiler, whose import
    takes longer than all else that a front end's first call does.

    Raises:
        ValueError: if they do not, or there can be no such learner.
    """
    shapes = {begin + name: shape for begin, part in parts.items() for name, shape in _files.read_header(part).items()}
    for arguments in (config["arguments"], config["explainer_arguments"]):
        _files.check_sizes(path, arguments, shapes)
    try:
        expected = _expected(json.dumps({name: value for name, value in config.items() if name in _FORM}))
    except Exception as error:
        raise ValueError(
            f"{path} describes a {config['learner']} over a {config['explainer']} that this release cannot build "
            f"({type(error).__name__}: {error}): save it again, or install the release that wrote it."
        ) from error
    _files.check_shapes(parts[""], shapes, expected)


@lru_cache(maxsize=64)
def _expected(form: str) -> dict[str, Tensor]:
    """The weights of a learner of this form, without memory for them."""
    with torch.device("meta"):
        return dict(build(json.loads(form)).state_dict())


def shipped_explainer(name: str = "zero-shot", kind: Kind = "shapley", requires_grad: bool = False) -> Explainer:
    """The explainer within a shipped learner.

    Args:
        name, kind: as in :func:`load_learner`.
        requires_grad: whether it is trained further, as the initialisation of MAML is; metric-based learners correct it and
            leave it as it is.

    >>> shipped_explainer().kind
    'shapley'
    """
    return load_learner(name, kind).explainer.requires_grad_(requires_grad)


def list_learners(kind: Kind = "shapley") -> list[str]:
    """Names of the shipped learners that predict ``kind``.

    Of the Shapley kind ``"maml"``, ``"prototypical"`` and ``"learned-optimizer"`` are for study, as they gain too seldom
    (``captum-meta benchmark small``): prefer ``"feature-maml"``, ``"matching"`` and ``"surrogate"``.

    Raises:
        ValueError: if there is no such kind.

    >>> "zero-shot" in list_learners()
    True
    """
    _check_kind(kind)
    return sorted(path.stem.removeprefix(f"{kind}-") for path in _shipped_folder().glob(f"{kind}-*.json"))


def build(config: dict[str, Any]) -> MetaLearner:
    """A fresh learner of the form that :func:`configuration` describes.

    Raises:
        ValueError: if it names a class that is none of ours.
    """
    arguments = {_RENAMED.get(name, name): value for name, value in config["arguments"].items()}
    if "base" in arguments:
        inner: Any = build({**config, **arguments.pop("base")})
    else:
        inner = _class(networks, config["explainer"], Explainer)(**config["explainer_arguments"])
    learner: MetaLearner = _class(learners, config["learner"], MetaLearner)(inner, **arguments)
    return learner


def _class(room: Any, name: str, base: type) -> Any:
    found = getattr(room, name, None)
    if not isinstance(found, type) or not issubclass(found, base) or inspect.isabstract(found):
        raise ValueError(f"{room.__name__} has no {base.__name__} named {name!r}")
    return found


def _check_kind(kind: str) -> None:
    if kind not in get_args(Kind):
        raise ValueError(f"There are no {kind!r} attributions: pass one of the kinds {list(get_args(Kind))}.")


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


def _shipped_folder() -> Path:
    return Path(str(resources.files("captum_meta"))) / "weights"
