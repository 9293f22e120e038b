"""Explanations on disk: one safetensors shard for each batch of tasks, named by a hash of all that it depends on.

A shard is whole or absent (:func:`captum_meta._files.write_whole`), also where several runs share a folder, and it carries
the checksum of its contents, so that damage is found. Whoever needs a shard makes it; nobody needs a list of what there is.
The manifest is written last, for the reader.
"""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from captum_meta._files import write_whole
from captum_meta.types import Coalitions, Evidence, Explanations

LAYOUT = 5
"""Version of what is stored; raise it when explanations of the same key would come out differently."""

_METADATA = "explanations"
_NESTED: dict[str, type[Evidence] | type[Coalitions]] = {"evidence": Evidence, "coalitions": Coalitions}


@runtime_checkable
class TaskFamily(Protocol):
    """A source of batches of explanations: ``variants(index)`` gives one or more views ``(T, N, M)`` of batch ``index``.

    A family of finite size has a ``__len__``. ``description(index)`` holds all that a batch depends on, as JSON
    can store it; a dataclass need not have it, as its fields are taken.
    """

    def variants(self, index: int) -> list[Explanations]:
        """Explanations of the models of batch ``index``."""


def describe(family: TaskFamily, index: int) -> dict[str, Any]:
    """All that batch ``index`` depends on, as JSON can hold it.

    Raises:
        TypeError: if the family does not say.
    """
    own = getattr(family, "description", None)
    if own is not None:
        metadata: dict[str, Any] = dict(own(index))
        return metadata
    if not is_dataclass(family):
        raise TypeError(
            f"{type(family).__name__} does not say what its batches depend on, so they cannot be kept in a folder: give it "
            "a method description(index), make it a dataclass, or pass folder=None."
        )
    kind = type(family)
    values = {field.name: getattr(family, field.name) for field in fields(family)}
    return {"family": f"{kind.__module__}.{kind.__qualname__}", **values, "index": index}


def key_of(description: Mapping[str, Any]) -> str:
    """The name of the shard that holds what ``description`` describes: 32 hexadecimal digits.

    >>> key_of({"seed": 1}) == key_of({"seed": 1}) != key_of({"seed": 2})
    True
    """
    text = json.dumps({"layout": LAYOUT, **description}, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


class ExplanationCache:
    """Batches of explanations in a folder, read through memory maps.

    Args:
        folder: made when it is first written to; all ranks of a run must see the same one.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)

    def path(self, key: str) -> Path:
        """Where the shard of ``key`` lies."""
        return self.folder / key[:2] / f"{key}.safetensors"

    def write(self, key: str, views: Sequence[Explanations]) -> None:
        """Keep the views of one batch.

        Raises:
            OSError: if the folder cannot be written to; nothing half-written remains under the shard's name.
        """
        tensors = {name: value for number, view in enumerate(views) for name, value in flatten(view, f"{number}.")}
        shape = list(views[0].attributions.shape)
        metadata = {"key": key, "views": len(views), "shape": shape, "finite": all(map(is_finite, views))}
        # one entry, for safetensors writes several in random order and equal shards should be equal files
        content = save(
            tensors, {_METADATA: json.dumps({**metadata, "checksum": _checksum(tensors, metadata)}, sort_keys=True)}
        )
        path = self.path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_whole(path, content)
        except OSError as error:
            raise OSError(
                error.errno,
                f"The explanations cannot be written ({error.strerror}): make room or choose another folder and run again; "
                "those already written are kept",
                str(path),
            ) from error

    def read(self, key: str) -> list[Explanations]:
        """The views of one batch; their tensors are pages of the file, read when they are touched."""
        with safe_open(self.path(key), "pt") as shard:
            tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
            return [build(Explanations, tensors, f"{view}.") for view in range(_metadata_of(shard)["views"])]

    def metadata(self, key: str) -> dict[str, Any]:
        """The shard's metadata: key, views, shape of the first, finite, checksum."""
        with self.path(key).open("rb") as file:
            header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
        metadata: dict[str, Any] = json.loads(header["__metadata__"][_METADATA])
        return metadata

    def intact(self, key: str) -> bool:
        """Whether the shard is there and its contents are what was written."""
        try:
            with safe_open(self.path(key), "pt") as shard:
                metadata = _metadata_of(shard)
                expected = metadata.pop("checksum")
                tensors = {name: shard.get_tensor(name) for name in shard.keys()}  # noqa: SIM118
        except (FileNotFoundError, SafetensorError, KeyError, TypeError, ValueError):
            return False
        return metadata.get("key") == key and _checksum(tensors, metadata) == expected

    def write_manifest(self, name: str, metadata: Sequence[Mapping[str, Any]]) -> None:
        """List the shards of one family, by their metadata, in ``manifest-NAME.json``.

        In a folder that may only be read, no list is written: nobody needs it.
        """
        shards = [{**one, "file": str(self.path(one["key"]).relative_to(self.folder))} for one in metadata]
        content = json.dumps({"layout": LAYOUT, "shards": shards}, indent=1).encode()
        try:
            write_whole(self.folder / f"manifest-{name}.json", content)
        except OSError as error:
            if error.errno not in (errno.EACCES, errno.EPERM, errno.EROFS):
                raise


def is_finite(explanations: Explanations) -> bool:
    """Whether labels and evidence are numbers."""
    tensors = (explanations.attributions, explanations.evidence.effects, explanations.evidence.total)
    return all(bool(tensor.isfinite().all()) for tensor in tensors)


class _Making(Dataset[int]):
    """Entry ``i`` makes batch ``indices[i]`` where its shard is missing or broken."""

    def __init__(self, family: TaskFamily, cache: ExplanationCache, indices: Sequence[int], keys: Sequence[str]) -> None:
        self.family, self.cache, self.indices, self.keys = family, cache, indices, keys

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, entry: int) -> int:
        if not self.cache.intact(self.keys[entry]):
            self.cache.write(self.keys[entry], self.family.variants(self.indices[entry]))
        return entry


def make(
    family: TaskFamily, cache: ExplanationCache, indices: Sequence[int], keys: Sequence[str], workers: int
) -> Iterator[int]:
    """Make those batches of ``indices`` that ``cache`` lacks under ``keys``, in ``workers`` processes; yields as they come.

    Ranks share the work by taking indices in turn; each makes its own, whatever the others have done so far.
    """
    yield from DataLoader(_Making(family, cache, indices, keys), batch_size=None, num_workers=workers)


def _metadata_of(shard: Any) -> dict[str, Any]:
    metadata: dict[str, Any] = json.loads(shard.metadata()[_METADATA])
    return metadata


def flatten(rows: Any, prefix: str = "") -> Iterator[tuple[str, Tensor]]:
    """The tensors of explanations by name, such as ``evidence.total``, as copies on the CPU."""
    for field in fields(rows):
        value = getattr(rows, field.name)
        if isinstance(value, Tensor):
            yield prefix + field.name, value.detach().cpu().contiguous().clone()  # views may share labels
        elif value is not None:
            yield from flatten(value, f"{prefix}{field.name}.")


def build(kind: type[Any], tensors: Mapping[str, Tensor], prefix: str = "") -> Any:
    """The explanations, evidence or coalitions whose tensors :func:`flatten` named."""
    values: dict[str, Any] = {}
    for field in fields(kind):
        name = prefix + field.name
        if name in tensors:
            values[field.name] = tensors[name]
        elif field.name in _NESTED and any(other.startswith(f"{name}.") for other in tensors):
            values[field.name] = build(_NESTED[field.name], tensors, f"{name}.")
        else:
            values[field.name] = None
    return kind(**values)


def _checksum(tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> str:
    digest = blake2b(json.dumps(metadata, sort_keys=True).encode(), digest_size=16)
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name}:{tensor.dtype}:{tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()
