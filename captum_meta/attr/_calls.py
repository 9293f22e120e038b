"""The arguments of a Captum method's ``attribute``, and the same of some of the rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from inspect import Parameter, signature
from typing import Any

import torch
from captum.attr import (
    Attribution,
    DeepLiftShap,
    GradientShap,
    LayerDeepLiftShap,
    LayerGradientShap,
    NeuronDeepLiftShap,
    NeuronGradientShap,
)
from torch import Tensor

from captum_meta import _captum
from captum_meta._model import reseed, unmoved_random_state
from captum_meta.attr._support import player_attributions
from captum_meta.games import Game
from captum_meta.games.arguments import take_rows, take_target
from captum_meta.games.players import join

Tensors = tuple[Tensor, ...]
_WITH_DISTRIBUTION = (
    GradientShap,
    DeepLiftShap,
    LayerGradientShap,
    LayerDeepLiftShap,
    NeuronGradientShap,
    NeuronDeepLiftShap,
)
"""Their baselines belong to no row."""


@dataclass(frozen=True)
class Call:
    """What a method is asked to explain.

    Attributes:
        method: any Captum method.
        inputs: for each input ``(B, *features)``.
        is_tuple: whether they were passed as a tuple.
        baselines, target, extra, feature_mask: as in Captum; ``extra`` are the additional forward arguments.
        further: the method's other arguments.
    """

    method: Attribution
    inputs: Tensors
    is_tuple: bool
    baselines: Any
    target: Any
    extra: Any
    feature_mask: Any
    further: Mapping[str, Any]

    def __len__(self) -> int:
        return len(self.inputs[0])

    @property
    def device(self) -> torch.device:
        """Where the inputs lie."""
        return self.inputs[0].device

    @property
    def parameters(self) -> Mapping[str, Parameter]:
        """Arguments that the method takes."""
        return signature(self.method.attribute).parameters

    @property
    def has_own_baselines(self) -> bool:
        """Whether baselines belong to the rows."""
        return not isinstance(self.method, _WITH_DISTRIBUTION) and not callable(self.baselines)

    @cached_property
    def game(self) -> Game:
        """The explained model at these rows."""
        baselines = self.baselines if self.has_own_baselines else None
        return Game(self.method.forward_func, self.inputs, baselines, self.target, self.extra, self.feature_mask)

    @cached_property
    def together(self) -> bool:
        """Whether the model only takes the caller's whole batch; finding out takes up to nine evaluations."""
        self.game.at(torch.ones(1))
        if self.game.n_rows != len(self):
            raise ValueError(
                "forward_func gives one number for the whole batch, so that rows have no errors of their own: pass a "
                "function that gives at least one for each row."
            )
        return self.game.together

    def take(self, rows: Tensor) -> Call:
        """The same of the rows ``(R,)``."""

        def each(value: Any) -> Any:
            return tuple(each(part) for part in value) if isinstance(value, tuple) else take_rows(value, rows, len(self))

        return replace(
            self,
            inputs=tuple(part[rows] for part in self.inputs),
            baselines=each(self.baselines) if self.has_own_baselines else self.baselines,
            target=take_target(self.target, rows, len(self)),
            extra=each(self.extra),
            feature_mask=each(self.feature_mask) if len(self) > 1 else self.feature_mask,
        )

    def explain(self, method: Attribution, other_draws: bool = False, **further: Any) -> Any:
        """The method's attributions of these rows; the global random state is kept.

        With ``other_draws`` a sampling method draws independently of a call without it.
        """
        named = {
            "baselines": self.baselines,
            "target": self.target,
            "additional_forward_args": self.extra,
            "feature_mask": self.feature_mask,
        }
        known = {name: value for name, value in named.items() if value is not None}
        with unmoved_random_state(self.device):
            if other_draws:
                reseed(self.device)
            return method.attribute(self.inputs if self.is_tuple else self.inputs[0], **{**known, **further})

    def values(self, parts: Tensors) -> Tensor:
        """Attributions ``(B, *shape)`` as ``(B, M)`` float64: a player of the inputs is counted once."""
        double = tuple(part.detach().double() for part in parts)
        return join(double) if self.feature_mask is None else player_attributions(double, self.game)

    def given_values(self, attributions: Any) -> Tensor:
        """The same for attributions passed by the user, in the inputs' shapes or by group."""
        parts = parts_of(attributions)
        by_element = [part.shape for part in parts] == [x.shape for x in self.inputs]
        if by_element or self.feature_mask is None:
            wrong = [tuple(part.shape) for part in parts if len(part) != len(self)]
            if wrong:
                raise ValueError(f"attributions have shapes {wrong} for {len(self)} rows: pass the teacher's of each row.")
            return self.values(parts)
        return player_attributions(attributions, self.game).double()

    def parts(self, values: Tensor, like: Tensors) -> Tensors:
        """Back from ``(B, M)`` to the shapes of attributions ``like`` these."""
        if self.feature_mask is None:
            split = values.split([part[0].numel() for part in like], dim=1)
        else:
            split = self.game.players.of_elements(values)
        return tuple(part.reshape(other.shape).to(other) for part, other in zip(split, like, strict=True))

    def counts(self, values: Tensor) -> Tensor:
        """Number of attributions ``(B, M)`` that are not padding, ``(B,)``."""
        if self.feature_mask is None:
            return torch.full((len(self),), values.shape[1], device=self.device)
        return self.game.players.mask.sum(1).expand(len(self))

    def player_inputs(self) -> Tensor:
        """Sums of each player's inputs, ``(B, P)`` float64."""
        return self.game.players.collect(tuple(part.detach().double() for part in self.inputs))


def parts_of(attributions: Any) -> Tensors:
    """The tensors of a method's answer: one, a tuple or a list."""
    if isinstance(attributions, list):
        return tuple(tensor for part in attributions for tensor in parts_of(part))
    return tuple(_captum.format_tensor_into_tuples(attributions))


def in_form_of(template: Any, parts: Iterator[Tensor]) -> Any:
    """Tensors in the structure of ``template``: a tensor, a tuple or a list."""
    if isinstance(template, (tuple, list)):
        return type(template)(in_form_of(one, parts) for one in template)
    return next(parts)
