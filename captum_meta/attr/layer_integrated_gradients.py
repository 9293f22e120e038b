"""Drop-in replacement for ``captum.attr.LayerIntegratedGradients``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import LayerIntegratedGradients
from captum.log import log_usage
from torch import Tensor, nn

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType
from captum_meta.attr._arguments import check_layers, checked
from captum_meta.attr._frontend import Learner, count_examples
from captum_meta.attr._path import PathFrontend
from captum_meta.evidence import Game, LayerModel
from captum_meta.evidence.path_rounds import MOST

Values = Tensor | tuple[Tensor, ...] | list[Tensor | tuple[Tensor, ...]]


class MetaLayerIntegratedGradients(PathFrontend, LayerIntegratedGradients):
    """Integrated Gradients of what a layer gives, such as the embeddings of a text model, from a few gradients.

    The path leads from the layer's activations at the baseline to those at the input. Gradients are spent as by
    :class:`MetaIntegratedGradients`, and two further evaluations give the activations.

    Args:
        forward_func: the model, as in Captum.
        layer: the module, or a list of modules none of which feeds another.
        device_ids: as in Captum, not needed: a model in ``DataParallel`` is run through its ``module``, on its first device.
        multiply_by_inputs: False for the average gradient instead of its product with the activations' difference.
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Embedding(10, 4), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    >>> tokens = torch.tensor([[5, 1, 7]])
    >>> MetaLayerIntegratedGradients(model, model[0]).attribute(tokens, target=1).sum(-1).shape
    torch.Size([1, 3])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module | list[nn.Module],
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
        *,
        learner: Learner = None,
    ) -> None:
        check_layers(layer)
        LayerIntegratedGradients.__init__(self, forward_func, layer, device_ids, multiply_by_inputs)
        self._set_learner(learner)

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
    ) -> Values | tuple[Values, Tensor] | tuple[Values, Tensor, Tensor]:
        """Explain rows; arguments as in ``captum.attr.LayerIntegratedGradients.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, method: as in Captum.
            n_steps, internal_batch_size, return_convergence_delta, tolerance, return_error_estimate: as in
                :meth:`MetaIntegratedGradients.attribute`.
            attribute_to_layer_input: explain what the layer is given instead of what it gives.
            grad_kwargs: not needed: activations that the output does not depend on get 0.

        Returns:
            Attributions in the shapes of the activations: a tensor, a tuple where the layer gives several, a list where
            there are several layers; then the delta ``(B,)`` and the estimates ``(B,)``, if asked for.
        """
        count_examples(inputs)
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        _captum.validate_input(formatted, starts, n_steps or MOST, method)
        model = LayerModel(self._model, self._layers, attribute_to_layer_input)
        game = self._layer_game(model, inputs, baselines, target, additional_forward_args, internal_batch_size)
        found = self._integrate(game, n_steps, method, tolerance, return_error_estimate)
        rest = iter(found.parts)
        outputs = [tuple(next(rest) for _ in range(count)) for count in model.counts]
        attributions: Values = _captum.format_outputs(isinstance(self.layer, list), outputs)
        return found.returned(attributions, return_convergence_delta, return_error_estimate)

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

    def _game(self, inputs: Any, baselines: Any, target: Any, additional_forward_args: Any, *others: Any) -> Game:
        """Of what the layers give, which is what supports are made of."""
        model = LayerModel(self._model, self._layers)
        return self._layer_game(model, inputs, baselines, target, additional_forward_args, None)

    def _layer_game(
        self,
        model: LayerModel,
        inputs: Any,
        baselines: Any,
        target: Any,
        additional_forward_args: Any,
        max_rows: int | None,
    ) -> Game:
        """The rest of the model, as a game whose players are the elements of the layers' activations."""
        if isinstance(self.forward_func, nn.DataParallel):
            first = next(self.forward_func.parameters(), torch.empty(0)).device
            inputs, baselines, additional_forward_args, target = (
                on_device(value, first) for value in (inputs, baselines, additional_forward_args, target)
            )
        whole = Game(self._model, inputs, baselines, target, additional_forward_args, None, max_rows)
        extra = whole.batch.extra or ()
        end, start = (model.activations(side, extra, max_rows) for side in (whole.inputs, whole.baselines))
        return Game(model, end, start, target, (*whole.inputs, *extra), None, max_rows)


def on_device(value: Any, device: torch.device) -> Any:
    """A tensor, or those of a tuple, moved."""
    if isinstance(value, tuple):
        return tuple(on_device(part, device) for part in value)
    return value.to(device) if isinstance(value, Tensor) else value
