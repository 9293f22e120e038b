"""Drop-in replacement for ``captum.attr.InternalInfluence``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from captum.attr import InternalInfluence
from captum.log import log_usage
from torch import Tensor, nn

from captum_meta._captum import BaselineType, TargetType
from captum_meta.attr._arguments import check_layers, check_model, checked
from captum_meta.attr._graph import refuse_with_graph
from captum_meta.attr._graph_layers import LayersOnPath
from captum_meta.attr._incomplete import CaptumQuadrature, incompletable_rows
from captum_meta.attr._layers import (
    OfLayers,
    Values,
    beside_zeros,
    outputs_of,
    parts_like,
    path_points,
    path_weights,
    values_through,
)
from captum_meta.attr._path import real
from captum_meta.attr._selection import selection, side_by_side
from captum_meta.estimators import interval_weights
from captum_meta.estimators.jumps import jump_corrections
from captum_meta.estimators.quadrature import MAX_INTERPOLATED
from captum_meta.evidence import Game, measure_bent_path, measure_path
from captum_meta.evidence.conductance import same
from captum_meta.evidence.path_rounds import MOST
from captum_meta.games import each_output
from captum_meta.games.layer import LayerModel
from captum_meta.games.layer_path import ReadLayers, ShiftedLayers
from captum_meta.games.players import join
from captum_meta.types import Evidence


class MetaInternalInfluence(OfLayers, InternalInfluence):
    r"""The average gradient of each element of a layer along the path of the inputs.

    .. math:: I_j = \int_0^1 \frac{\partial f}{\partial h_j}\, dt

    Up to 32 gradients are placed along the path of each row, by what f is halfway, and f's changes between them tell where
    they jump (:mod:`captum_meta.estimators.jumps`). A row costs eight evaluations besides.

    Tried without gain: the rounds of :class:`MetaIntegratedGradients` for the inputs of the same path. Gradients of inputs
    bend where those of the layer do not, and the points right for them were up to 8 times worse than Captum's for the layer.

    Args:
        forward_func: the model, as in Captum.
        layer: the module.
        device_ids: as in Captum, not needed: a model in ``DataParallel`` is run through its ``module``, on its first device.

    Reference: Leino et al., *Influence-Directed Explanations for Deep Convolutional Networks*, 2018.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> influence = MetaInternalInfluence(model, model[1]).attribute(torch.randn(5, 4), target=1)
    >>> torch.allclose(influence, model[2].weight[1].expand(5, 3), atol=1e-5)
    True
    """

    def __init__(self, forward_func: Callable[..., Any], layer: nn.Module, device_ids: list[int] | None = None) -> None:
        check_model(forward_func)
        check_layers(layer)
        InternalInfluence.__init__(self, forward_func, layer, device_ids)

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
        attribute_to_layer_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        outputs: Literal["all"] | Sequence[int] | None = None,
        create_graph: bool = False,
    ) -> Values:
        """Explain rows; arguments as in ``captum.attr.InternalInfluence.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, method: as in Captum.
            n_steps: gradients per row; 50 by default, as in Captum.
            internal_batch_size, outputs: as in :meth:`MetaIntegratedGradients.attribute`.
            attribute_to_layer_input: explain what the layer is given instead of what it gives.
            grad_kwargs: not needed: activations that the output does not depend on get 0.
            create_graph: attributions carry a gradient to the model's parameters as well as to the inputs, so that a loss of
                them can train it. Gradients are then taken at the ``n_steps`` points of ``method`` (8 by default).

        Returns:
            Average gradients in the shapes of the activations; with ``outputs`` a dimension of them is the second.
        """
        given = (real(inputs), baselines, selection(target, outputs), additional_forward_args)
        whole = self._whole_game(*given, internal_batch_size, n_steps, method)
        if create_graph:
            refuse_with_graph(outputs=outputs)
            layers = LayerModel(self._model, self._layers, attribute_to_layer_input)
            path = LayersOnPath.of(layers, whole, real(inputs), baselines)
            return self._shaped(layers, path.average(n_steps, method))
        last, few = outputs_of(whole), 3 <= (n_steps or MOST) <= MAX_INTERPOLATED
        model = (ReadLayers if few else ShiftedLayers)(self._model, self._layers, attribute_to_layer_input)
        extra = whole.batch.extra or ()
        end = model.activations(whole.inputs, extra, internal_batch_size)
        game = beside_zeros(model, whole, (*end, *end) if few else end, internal_batch_size, whole.batch.target)
        count, ends, passing = sum(part[0].numel() for part in end), None, last
        if few:
            start = model.activations(whole.baselines, extra, internal_batch_size)
            ends, passing = torch.stack([join(start), join(end)], dim=-1), values_through(model, end, whole)
        averages = []
        for one, through, value in zip(each_output(game), passing.unbind(1), last.unbind(1), strict=True):
            average, evidence, gradients = _average(one, n_steps or MOST, method)
            if ends is not None and method == "gausslegendre" and not one.together:
                corrected = _corrections(evidence, gradients, ends).to(average)
                known = same(through, value, evidence.total) & evidence.total.isfinite()
                average[:, :count] += torch.where(known.unsqueeze(1), corrected, 0.0)
            averages.append(average[:, :count])
        shape = () if outputs is None else tuple(game.output_shape)
        return self._shaped(model, side_by_side([parts_like(end, average) for average in averages], shape))


def _corrections(evidence: Evidence, gradients: Tensor, ends: Tensor) -> Tensor:
    """Corrections of the averages by f's changes between the nodes, ``(N, elements)``."""
    count = ends.shape[1]
    path = torch.cat([ends[..., :1], gradients[:, count : 2 * count], ends[..., 1:]], dim=-1)
    values = torch.cat([0 * evidence.curve[:, :1], evidence.curve, evidence.total.unsqueeze(1)], dim=1)
    return jump_corrections(evidence.points, interval_weights(evidence.points), gradients[:, :count], path, values)


def _average(game: Game, n_steps: int, method: str) -> tuple[Tensor, Evidence, Tensor]:
    """Averages of all gradients, ``(N, elements)``, the evidence, and the gradients ``(N, elements, n_steps)``."""
    outputs_of(game)
    points = path_points(game, n_steps, method)
    evidence, gradients, _ = measure_bent_path(game, n_steps) if points is None else measure_path(game, points)
    average = (gradients * path_weights(evidence, n_steps, method).unsqueeze(-2)).sum(-1)
    rows = incompletable_rows(game, evidence.total)
    average = CaptumQuadrature(n_steps, method, multiply=False).in_rows(rows, average, game)
    missing = ~game.difference.isfinite().all(1)
    return torch.where((missing & ~evidence.total.isfinite()).unsqueeze(1), torch.nan, average), evidence, gradients
