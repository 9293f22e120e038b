"""Attributions of layers, and of inputs through a neuron, that carry a gradient to the model (``create_graph``).

Points of the paths do not depend on the model, and no gap is shared out: the quadrature alone is returned, differentiated.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType
from captum_meta._model import untouched, wide
from captum_meta.attr._draws import DrawnPaths, Draws
from captum_meta.attr._graph import STEPS, between, differences, filled
from captum_meta.attr._layers import parts_like
from captum_meta.games import Game
from captum_meta.games.differentiated import Differentiated
from captum_meta.games.layer import LayerModel
from captum_meta.games.layer_path import NeuronModel
from captum_meta.games.players import Tensors, join


@dataclass(frozen=True)
class LayersOnPath:
    """Activations of layers along the path of the inputs, and the model's gradients there, all in the graph.

    Attributes:
        model: the model with its layers.
        ends, starts: inputs and baselines with their graph, ``(B, *features)`` each.
        target: as in Captum.
        extra: additional arguments.
    """

    model: LayerModel
    ends: Tensors
    starts: Tensors
    target: Any
    extra: tuple[Any, ...]

    @classmethod
    def of(cls, model: LayerModel, whole: Game, inputs: Any, baselines: BaselineType) -> LayersOnPath:
        """From a checked call."""
        ends, begins = _captum.format_input_baseline(inputs, baselines)
        device = whole.device
        ends, starts = (tuple(part.to(device) for part in side) for side in (ends, filled(ends, begins)))
        return cls(model, ends, starts, whole.batch.target, whole.batch.extra or ())

    def at(self, point: float) -> tuple[Any, ...]:
        """The model's arguments at a point of the path."""
        return (*between(self.starts, differences(self.ends, self.starts), point), *self.extra)

    def activations(self, point: float) -> Tensors:
        """The layers' activations there."""
        return self.model.activations_in_graph(self.at(point))

    def gradients(self, point: float) -> Tensors:
        """Gradients with respect to these."""
        activations = self.activations(point)
        return Differentiated(self.model, self.target, self.at(point)).gradients(activations)

    def change(self) -> Tensor:
        """f(input) - f(baseline), ``(B,)``."""
        whole = Differentiated(self.model.forward_func, self.target, self.extra)
        return whole.values(self.ends) - whole.values(self.starts)

    def average(self, n_steps: int | None, method: str) -> Tensors:
        """Internal influence: the mean gradient."""
        with untouched(self.model.forward_func, self.ends[0].device), torch.enable_grad():
            total: Tensors = ()
            for point, weight in _nodes(n_steps or STEPS, method):
                parts = tuple(weight * part for part in self.gradients(point))
                total = tuple(map(torch.add, total, parts)) if total else parts
        return total

    def conductance(self, n_steps: int | None, method: str) -> tuple[Tensors, Tensor]:
        """Gradients times the activations' changes over their weights' parts of the path, and the sums minus f's change."""
        with untouched(self.model.forward_func, self.ends[0].device), torch.enable_grad():
            nodes = _nodes(n_steps or STEPS, method)
            borders = list(accumulate(weight for _, weight in nodes))
            before, total = self.activations(0.0), tuple[Tensor, ...]()
            for (point, _), border in zip(nodes, borders, strict=True):
                after = self.activations(border / borders[-1])
                moved = zip(self.gradients(point), after, before, strict=True)
                parts = tuple(gradient * (wide(one) - wide(other)) for gradient, one, other in moved)
                total, before = tuple(map(torch.add, total, parts)) if total else parts, after
            return total, join(total).sum(1) - self.change()


def neuron_conductance(path: LayersOnPath, n_steps: int | None, method: str, multiply: bool) -> Tensors:
    """Conductance of each input through a neuron, ``(B, *features)`` for each input."""
    neuron = path.model
    assert isinstance(neuron, NeuronModel)
    with untouched(neuron.forward_func, path.ends[0].device), torch.enable_grad():
        total = tuple(torch.zeros_like(wide(part)) for part in path.ends)
        for point, weight in _nodes(n_steps or STEPS, method):
            x = tuple(part.requires_grad_() if part.is_leaf else part for part in path.at(point)[: len(path.ends)])
            given = neuron.activations_in_graph((*x, *path.extra))
            gradients = Differentiated(neuron.rest(), path.target, (*x, *path.extra)).gradients(given)
            number, factor = neuron.selected(given, len(x[0])), neuron.selected(gradients, len(x[0]))
            found = torch.autograd.grad(
                number, x, factor.to(number.dtype), create_graph=True, allow_unused=True, materialize_grads=True
            )
            total = tuple(old + weight * part for old, part in zip(total, found, strict=True))
        if multiply:
            total = tuple(map(torch.mul, total, differences(path.ends, path.starts)))
    return total


def drawn_of_layers(
    model: LayerModel,
    inputs: Tensors,
    game: Game,
    distribution: Tensors,
    noise: tuple[float, ...],
    n_samples: int,
    seed: int,
    multiply: bool,
) -> Tensors:
    """Expected gradients of layers, of inputs with their graph, from the same draws as without one."""
    game = game.of(replace(game.batch, inputs=inputs))
    with untouched(model.forward_func, game.device), torch.enable_grad():
        paths = DrawnPaths.of(game, distribution, noise, n_samples, seed)
        batch = paths.standing(game, paths.middles)
        extra = batch.extra or ()
        start, end = (model.activations_in_graph((*side, *extra)) for side in (paths.starts, paths.ends))
        middles = model.activations_in_graph((*paths.middles, *extra))
        gradients = join(Differentiated(model, batch.target, (*paths.middles, *extra)).gradients(middles))
        delta = join(end) - join(start)
        expected = delta.unflatten(0, (-1, n_samples)).mean(1)
        if len(distribution) == 1 and not extra and len(distribution[0]) <= len(delta):
            everything = join(model.activations_in_graph(distribution)).mean(0)
            expected = join(end).unflatten(0, (-1, n_samples)).mean(1) - everything
        draws = Draws(game, distribution, noise, n_samples, expected, delta, torch.zeros_like(gradients[:, 0]), gradients)
        found = draws.expected_gradients[0] if multiply else draws.average_gradient()
    return parts_like(end, found)


def _nodes(n_steps: int, method: str) -> list[tuple[float, float]]:
    """Points of the path and their weights, in order."""
    points, weights = (part(n_steps) for part in _captum.approximation_parameters(method)[::-1])
    return sorted((float(point), float(weight)) for point, weight in zip(points, weights, strict=True))
