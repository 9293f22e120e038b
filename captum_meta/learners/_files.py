"""A learner's two files. Contents are checked before memory is allocated for them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from captum_meta._files import write_whole

_FIELDS: dict[str, type] = {
    "evidence_version": int,
    "kind": str,
    "learner": str,
    "arguments": dict,
    "explainer": str,
    "explainer_arguments": dict,
    "weights": str,
}
_NO_SIZES = ("hypergradient", "neighbours")
_SUFFIXES = (".json", ".safetensors")


def stem(path: Path) -> Path:
    """The common stem of both files, from the path of either.

    Raises:
        ValueError: if it has no name.
    """
    if not path.name:
        raise ValueError(f"A learner's path ends in a name, as runs/mine does, got {str(path)!r}: pass one with a name.")
    return path.with_suffix("") if path.suffix in _SUFFIXES else path


def missing(given: Path) -> str:
    """A suggestion for a path without a learner, as the end of a message."""
    if given.suffix == ".ckpt":
        return "; the learner of a checkpoint is given by captum_meta.training.learner_from_checkpoint(path)"
    if stem(given).with_name(stem(given).name + ".safetensors").is_file():
        return f". The weights are there, but {json_of(stem(given)).name} beside them, which says what they are of, is not"
    return ""


def json_of(path: Path) -> Path:
    """Where the configuration lies."""
    return path.with_name(path.name + ".json")


def write(path: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Write both files beside each other, each whole or not at all.

    Raises:
        ValueError: for weights that are not finite.
    """
    _check_finite(weights, "the learner")
    path.parent.mkdir(parents=True, exist_ok=True)
    data = save({name: value.detach().cpu().contiguous() for name, value in weights.items()})
    name = path.name + ".safetensors"
    config = {**config, "weights": name, "sha256": sha256(data).hexdigest()}
    write_whole(path.with_name(name), data)
    write_whole(json_of(path), (json.dumps(config, indent=2) + "\n").encode())


def read_config(path: Path) -> dict[str, Any]:
    """The JSON file, with all of its fields.

    Raises:
        ValueError: if it cannot be read, or lacks a field.
    """
    try:
        config = json.loads(path.read_text(encoding="utf-8"), parse_constant=_refuse)
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no JSON file that can be read ({error}): save the learner again.") from error
    for name, form in _FIELDS.items():
        if not isinstance(config, dict) or not isinstance(config.get(name), form) or isinstance(config[name], bool):
            raise ValueError(f"{path} has no field {name!r} of type {form.__name__}: save the learner again.")
    for name in (config["weights"], config.get("base_weights", config["weights"])):
        if not isinstance(name, str) or name != Path(name).name or "\\" in name or name in ("", ".", ".."):
            raise ValueError(
                f"{path} names the weights {name!r}: they must lie in the same folder, and be named without it."
            )
    return config


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not valid JSON")


def read_header(path: Path) -> dict[str, tuple[int, ...]]:
    """The shapes of the weights, by name; nothing of their size is allocated.

    Raises:
        ValueError: if the file is missing or broken.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, TypeError) as error:
        raise ValueError(
            f"The weights {path} cannot be read ({error}): save the learner again, beside {path.stem}.json."
        ) from error


def check_sizes(path: Path, arguments: Mapping[str, Any], shapes: Mapping[str, tuple[int, ...]]) -> None:
    """No whole number in the arguments exceeds the number of weights, and no depth that of their tensors.

    Raises:
        ValueError: for numbers that no learner of these weights can have.
    """
    most = sum(prod(shape) for shape in shapes.values())
    for name, value in arguments.items():
        if name in _NO_SIZES:
            continue
        if isinstance(value, Mapping):
            check_sizes(path, value, shapes)
        limit = len(shapes) if name == "depth" else most
        if isinstance(value, int) and not isinstance(value, bool) and value > limit:
            raise ValueError(f"{path} says {name}={value}, which does not fit its {most} weights: save the learner again.")


def check_shapes(path: Path, shapes: Mapping[str, tuple[int, ...]], expected: Mapping[str, Tensor]) -> None:
    """Weights must be those of the learner; one that is empty in a fresh learner holds as many rows as it has learned.

    Raises:
        ValueError: for weights too many, too few, or of another shape.
    """
    wrong = sorted(expected.keys() ^ shapes.keys())
    wrong += [name for name, value in expected.items() if name in shapes and value.numel() and shapes[name] != value.shape]
    if wrong:
        raise ValueError(
            f"The weights {path} are not those that {path.stem}.json describes, they differ in {', '.join(wrong[:3])}"
            f"{' and more' if len(wrong) > 3 else ''}: save the learner again, both files from one save()."
        )


def read_weights(path: Path, checksum: str | None) -> dict[str, Tensor]:
    """The weights.

    Raises:
        ValueError: if they are not those that were saved, or not finite.
    """
    data = path.read_bytes()
    if checksum is not None and sha256(data).hexdigest() != checksum:
        raise ValueError(
            f"The weights {path} are not those that were saved (their SHA-256 is not the one in the JSON file): "
            "copy both files again, or save the learner again."
        )
    weights: dict[str, Tensor] = load(data)
    _check_finite(weights, str(path))
    return weights


def _check_finite(weights: Mapping[str, Tensor], owner: str) -> None:
    broken = [name for name, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise ValueError(
            f"The weights {', '.join(broken[:3])}{' and more' if len(broken) > 3 else ''} of {owner} are not finite: "
            "train it again, from the last checkpoint whose weights are."
        )
