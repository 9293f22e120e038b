"""What the front ends of layers and neurons share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from captum_meta import _captum
from captum_meta._model import wide
from captum_meta.attr._arguments import check_layers
from captum_meta.attr._frontend import Frontend, Learner, count_examples
from captum_meta.attr._path import BEGINNING
from captum_meta.estimators import gauss_legendre, interval_weights
from captum_meta.evidence import Game, LayerModel, Players
from captum_meta.evidence.path import check_output
from captum_meta.evidence.path_rounds import MOST
from captum_meta.types import Evidence

Values = Tensor | tuple[Tensor, ...] | list[Tensor | tuple[Tensor, ...]]


class OfLayers:
    """Mixin for subclasses of Captum's methods of layers and of neurons."""

    forward_func: Callable[..., Any]
    layer: Any

    @property
    def _model(self) -> Callable[..., Any]:
        """The model without ``DataParallel`` around it."""
        if isinstance(self.forward_func, nn.DataParallel):
            module: nn.Module = self.forward_func.module
            return module
        return self.forward_func

    @property
    def _layers(self) -> list[nn.Module]:
        return self.layer if isinstance(self.layer, list) else [self.layer]

    def _whole_game(
        self,
        inputs: Any,
        baselines: Any,
        target: Any,
        additional_forward_args: Any,
        max_rows: int | None = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
    ) -> Game:
        """The game of the whole model, after Captum's checks of the arguments."""
        count_examples(inputs)
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        _captum.validate_input(formatted, starts, n_steps or MOST, method)
        given = self._moved((inputs, baselines, target, additional_forward_args))
        return Game(self._model, *given, None, max_rows)  # type: ignore[call-arg]

    def _moved(self, values: tuple[Any, ...]) -> tuple[Any, ...]:
        """The arguments on the model's first device, where ``DataParallel`` would have moved them."""
        if not isinstance(self.forward_func, nn.DataParallel):
            return values
        first = next(self.forward_func.parameters(), torch.empty(0)).device
        return tuple(on_device(value, first) for value in values)

    def _shaped(self, model: LayerModel, parts: tuple[Tensor, ...]) -> Values:
        """Tensors, one for each output of the layers, in Captum's form."""
        rest = iter(parts)
        outputs = [tuple(next(rest) for _ in range(count)) for count in model.counts]
        values: Values = _captum.format_outputs(isinstance(self.layer, list), outputs)
        return values


class Unadapted(OfLayers, Frontend):
    """Front ends that do not adapt, as their evidence depends on more than the model and its inputs."""

    def _game(self, *arguments: Any) -> Game:
        raise NotImplementedError(
            f"{type(self).__name__} does not adapt: its evidence depends on the layer and the neuron. Adapt "
            "MetaIntegratedGradients or MetaLayerIntegratedGradients instead."
        )


class OfNeurons(Unadapted):
    """Mixin for subclasses of Captum's methods of neurons."""

    kind = "path"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
        *,
        learner: Learner = None,
    ) -> None:
        check_layers(layer)
        super().__init__(forward_func, layer, device_ids, multiply_by_inputs)  # type: ignore[call-arg]
        self._set_learner(learner)
        self._learned = learner is not None


def beside_zeros(
    model: nn.Module, whole: Game, zeros: tuple[Tensor, ...], max_rows: int | None, target: Any, *further: Any
) -> Game:
    """The game of a model whose first arguments are tensors of zeros, along the path of the whole model's inputs."""
    nothing = tuple(torch.zeros_like(part) for part in zeros)
    inputs, baselines = (*nothing, *whole.inputs), (*nothing, *whole.baselines)
    return Game(model, inputs, baselines, target, (*(whole.batch.extra or ()), *further) or None, None, max_rows)


def outputs_of(game: Game) -> Tensor:
    """f of the inputs, ``(N, K)``: the selected outputs.

    Raises:
        AssertionError: if there is more than one number for each example, and ``outputs=`` was not passed.
    """
    values = game.at(torch.ones(1))
    check_output(game, values)
    return values[:, 0]


def values_through(model: LayerModel, end: tuple[Tensor, ...], whole: Game) -> Tensor:
    """f ``(N, K)`` of the baselines with the layer's activations at the inputs: f(input) where the layer carries all."""
    extra = (*whole.baselines, *(whole.batch.extra or ()))
    return outputs_of(Game(model.rest(), end, None, whole.batch.target, extra))


def path_points(game: Game, n_steps: int, method: str) -> Tensor | None:
    """Points of the path common to all rows; None where each row has its own."""
    if method == "gausslegendre":
        return gauss_legendre(n_steps)[0] if game.together else None
    points = torch.tensor(_captum.approximation_parameters(method)[1](n_steps), dtype=torch.float64)
    return points.clamp(BEGINNING, 1 - BEGINNING)


def path_weights(evidence: Evidence, n_steps: int, method: str) -> Tensor:
    """Weights of the quadrature, ``(N, n_steps)`` or ``(n_steps,)``."""
    if method == "gausslegendre":
        return interval_weights(evidence.points).sum(-2).to(evidence.effects)
    return torch.tensor(_captum.approximation_parameters(method)[0](n_steps)).to(evidence.effects)


def parts_like(tensors: tuple[Tensor, ...], values: Tensor) -> tuple[Tensor, ...]:
    """Values of all elements ``(N, E)`` in the shapes of the tensors, and in their dtypes, but for half precision."""
    parts = Players.of(tensors).of_elements(values)
    return tuple(part.to(wide(like).dtype) for part, like in zip(parts, tensors, strict=True))


def on_device(value: Any, device: torch.device) -> Any:
    """A tensor, or those of a tuple, moved."""
    if isinstance(value, tuple):
        return tuple(on_device(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value
