"""A front end's learner: shipped weights are read once and shared by all front ends, until one is asked for its own."""

from __future__ import annotations

from copy import deepcopy
from functools import lru_cache
from os import PathLike

import torch
from torch import Tensor

from captum_meta.attr._arithmetic import working_dtype
from captum_meta.attr._units import InUnits
from captum_meta.learners import MetaLearner, list_learners, load_learner
from captum_meta.types import Kind

Learner = MetaLearner | str | PathLike[str] | None


@lru_cache(maxsize=32)
@torch.inference_mode(False)
def _shipped(name: str | None, kind: Kind, device: torch.device, dtype: torch.dtype) -> MetaLearner:
    """A shipped learner, one for all: only what nobody changes may be done with it."""
    return load_learner(name, kind).to(device, dtype)


class LearnerInUse:
    """The learner of one front end.

    Args:
        given: as front ends take it.
        kind: what is predicted.

    Raises:
        ValueError, TypeError: as :func:`~captum_meta.learners.load_learner`.
    """

    def __init__(self, given: Learner, kind: Kind) -> None:
        self._name, self._kind, self._own = None, kind, None
        self._copies: dict[tuple[torch.device, torch.dtype], MetaLearner] = {}
        if given is None or (isinstance(given, str) and given in list_learners(kind)):
            self._name = given
        else:
            self._own = given if isinstance(given, MetaLearner) else load_learner(given, kind)

    @property
    def given(self) -> MetaLearner | str | None:
        """What another front end is given to have the same learner."""
        return self._name if self._own is None else self._own

    @property
    def own(self) -> MetaLearner:
        """An object that belongs to this front end alone, or was passed to it; it may be changed before the next call."""
        if self._own is None:
            self._own = load_learner(self._name, self._kind)
        return self._own

    @property
    def read(self) -> MetaLearner:
        """The learner, of which nothing is changed."""
        return _shipped(self._name, self._kind, torch.device("cpu"), torch.float32) if self._own is None else self._own

    def for_numbers(self, values: Tensor) -> InUnits:
        """The learner on the device and in the precision of ``values``; an object that was passed stays where it is."""
        key = values.device, working_dtype(values)
        if self._own is None:
            return InUnits(_shipped(self._name, self._kind, *key))
        if key not in self._copies:
            with torch.inference_mode(False):
                self._copies[key] = deepcopy(self._own).to(*key).eval()
        return InUnits(self._copies[key])
