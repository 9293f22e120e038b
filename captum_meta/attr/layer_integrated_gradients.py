"""Drop-in replacement for ``captum.attr.LayerIntegratedGradients``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from captum.attr import LayerIntegratedGradients
from captum.log import log_usage
from torch import Tensor, nn

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType
from captum_meta.attr._arguments import check_layers, checked
from captum_meta.attr._frontend import Learner
from captum_meta.attr._graph import STEPS, Parts, filled, integrated, refuse_with_graph
from captum_meta.attr._layers import OfLayers, Values
from captum_meta.attr._path import PathFrontend, PathResult
from captum_meta.attr._selection import selection
from captum_meta.evidence import Game, LayerModel
from captum_meta.games import each_output
from captum_meta.games.differentiated import Differentiated


class MetaLayerIntegratedGradients(OfLayers, PathFrontend, LayerIntegratedGradients):
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
        outputs: Literal["all"] | Sequence[int] | None = None,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        create_graph: bool = False,
    ) -> Values | tuple[Values, Tensor] | tuple[Values, Tensor, Tensor]:
        """Explain rows; arguments as in ``captum.attr.LayerIntegratedGradients.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, method: as in Captum.
            n_steps, internal_batch_size, return_convergence_delta, tolerance, return_error_estimate, create_graph: as in
                :meth:`MetaIntegratedGradients.attribute`.
            attribute_to_layer_input: explain what the layer is given instead of what it gives.
            grad_kwargs: not needed: activations that the output does not depend on get 0.
            outputs: as in :meth:`MetaIntegratedGradients.attribute`.

        Returns:
            Attributions in the shapes of the activations: a tensor, a tuple where the layer gives several, a list where
            there are several layers; then the delta ``(B,)`` and the estimates ``(B,)``, if asked for. With ``outputs`` each
            has a dimension of them behind the first.
        """
        chosen = selection(target, outputs)
        whole = self._whole_game(inputs, baselines, chosen, additional_forward_args, internal_batch_size, n_steps, method)
        model = LayerModel(self._model, self._layers, attribute_to_layer_input)
        multiply = self.multiplies_by_inputs
        if create_graph:
            refuse_with_graph(outputs=outputs, tolerance=tolerance, return_error_estimate=return_error_estimate)
            ends, begins = _captum.format_input_baseline(inputs, baselines)
            ends, begins = self._moved((ends, filled(ends, begins)))
            arguments = (*ends, *(whole.batch.extra or ()))
            end = model.activations_in_graph(arguments)
            start = model.activations_in_graph((*begins, *(whole.batch.extra or ())))
            rest = Differentiated(model, whole.batch.target, arguments)
            game = _rest_between(model, whole, end, start, internal_batch_size)
            parts, delta = integrated(game, rest, end, start, n_steps or STEPS, method, multiply)
            return (self._shaped(model, parts), delta) if return_convergence_delta else self._shaped(model, parts)
        game = _rest_of(model, whole, internal_batch_size)
        asked = (n_steps, method, tolerance, return_error_estimate, multiply)
        results = [self._integrate(one, *asked) for one in each_output(game)]
        found = PathResult.side_by_side(results, () if outputs is None else tuple(game.output_shape))
        return found.returned(self._shaped(model, found.parts), return_convergence_delta, return_error_estimate)

    def _game(self, inputs: Any, baselines: Any, target: Any, additional_forward_args: Any, *others: Any) -> Game:
        """Of what the layers give, which is what supports are made of."""
        whole = self._whole_game(inputs, baselines, target, additional_forward_args)
        return _rest_of(LayerModel(self._model, self._layers), whole, None)


def _rest_of(model: LayerModel, whole: Game, max_rows: int | None) -> Game:
    """The rest of the model, as a game whose players are the elements of the layers' activations."""
    extra = whole.batch.extra or ()
    end, start = (model.activations(side, extra, max_rows) for side in (whole.inputs, whole.baselines))
    return _rest_between(model, whole, end, start, max_rows)


def _rest_between(model: LayerModel, whole: Game, end: Parts, start: Parts, max_rows: int | None) -> Game:
    return Game(model, end, start, whole.batch.target, (*whole.inputs, *(whole.batch.extra or ())), None, max_rows)
