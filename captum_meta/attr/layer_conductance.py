"""Drop-in replacement for ``captum.attr.LayerConductance``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Literal

import torch
from captum.attr import LayerConductance
from captum.log import log_usage
from torch import Tensor, nn

from captum_meta._captum import BaselineType, TargetType
from captum_meta.attr._arguments import check_layers, checked
from captum_meta.attr._frontend import Learner
from captum_meta.attr._graph import refuse_with_graph
from captum_meta.attr._graph_layers import LayersOnPath
from captum_meta.attr._incomplete import INCONSISTENT, UNKNOWN, warn_of_rows
from captum_meta.attr._layers import Unadapted, Values, beside_zeros, outputs_of, parts_like, path_points, values_through
from captum_meta.attr._path import quadrature_or, real
from captum_meta.attr._selection import of_outputs, selection, side_by_side
from captum_meta.estimators.quadrature import MAX_INTERPOLATED
from captum_meta.evidence import PathPlan
from captum_meta.evidence.conductance import completed, measure_layer, same
from captum_meta.evidence.consistency import inconsistent_rows
from captum_meta.games import each_output
from captum_meta.games.layer import LayerModel
from captum_meta.games.layer_path import ReadLayers
from captum_meta.games.players import join


class MetaLayerConductance(Unadapted, LayerConductance):
    r"""Conductance, the part of f's change that passes through each element of a layer, from a few gradients.

    .. math:: C_j = \int_0^1 \frac{\partial f}{\partial h_j} \frac{d h_j}{dt}\, dt

    Captum multiplies gradients with the change of activations to the next point; here activations are interpolated, and
    where all of f passes through the layer the meta-learned explainer shares out what the sum misses of f's change. A row
    costs ``n_steps`` gradients and eight evaluations.

    Args:
        forward_func: the model, as in Captum.
        layer: the module.
        device_ids: as in Captum, not needed: a model in ``DataParallel`` is run through its ``module``, on its first device.
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Dhamdhere, Sundararajan and Yan, *How Important Is a Neuron?*, ICLR 2019.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> MetaLayerConductance(model, model[1]).attribute(torch.randn(5, 4), target=1).shape
    torch.Size([5, 3])
    """

    kind = "path"

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        device_ids: list[int] | None = None,
        *,
        learner: Learner = None,
    ) -> None:
        check_layers(layer)
        LayerConductance.__init__(self, forward_func, layer, device_ids)
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
        create_graph: bool = False,
    ) -> Values | tuple[Values, Tensor]:
        """Explain rows; arguments as in ``captum.attr.LayerConductance.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, method: as in Captum.
            n_steps: gradients per row; 32 by default, more exact than Captum's 51. Up to 32 are placed for each row.
            internal_batch_size, return_convergence_delta, outputs: as in :meth:`MetaIntegratedGradients.attribute`.
            attribute_to_layer_input: explain what the layer is given instead of what it gives.
            grad_kwargs: not needed: activations that the output does not depend on get 0.
            create_graph: attributions carry a gradient to the model's parameters as well as to the inputs, so that a loss of
                them can train it. Gradients are then taken at the ``n_steps`` points of ``method`` (8 by default); each is
                multiplied with the change of the activations around it, and what the sum misses of f's change is not shared
                out.

        Returns:
            Attributions in the shapes of the activations, then the delta ``(B,)`` if asked for. With ``outputs`` each has a
            dimension of them behind the first.
        """
        given = (real(inputs), baselines, selection(target, outputs), additional_forward_args)
        whole = self._whole_game(*given, internal_batch_size, n_steps, method)
        if create_graph:
            refuse_with_graph(outputs=outputs)
            layers = LayerModel(self._model, self._layers, attribute_to_layer_input)
            parts, delta = LayersOnPath.of(layers, whole, real(inputs), baselines).conductance(n_steps, method)
            return (self._shaped(layers, parts), delta) if return_convergence_delta else self._shaped(layers, parts)
        last = outputs_of(whole)
        n_steps = n_steps or MAX_INTERPOLATED
        model = ReadLayers(self._model, self._layers, attribute_to_layer_input)
        extra = whole.batch.extra or ()
        start, end = (model.activations(side, extra, internal_batch_size) for side in (whole.baselines, whole.inputs))
        game = beside_zeros(model, whole, (*end, *end), internal_batch_size, whole.batch.target)
        ends, points = torch.stack([join(start), join(end)], dim=-1), path_points(whole, n_steps, method)
        explained, deltas = [], []
        passing = values_through(model, end, whole) if n_steps <= MAX_INTERPOLATED else last
        for one, through, value in zip(each_output(game), passing.unbind(1), last.unbind(1), strict=True):
            evidence, trapezia, size = measure_layer(one, ends, points, n_steps)
            total, values = evidence.total, trapezia
            if evidence.points.shape[1] <= MAX_INTERPOLATED:
                passes, sums = same(through, value, total), evidence.effects.sum(1)
                strange = passes & inconsistent_rows(whole, evidence.points, sums, evidence.curve, total)
                warn_of_rows(strange, INCONSISTENT)
                passes = passes & ~strange
                plan = PathPlan(n_steps, method)
                others = partial(self._attributions, completed(evidence, where=~passes), plan)
                values = quadrature_or(others, evidence, sums, plan.weights(evidence), size, game.precision)
            values = torch.where(total.isfinite().unsqueeze(1), values, trapezia)
            warn_of_rows(~total.isfinite(), UNKNOWN)
            explained.append(parts_like(end, values))
            deltas.append(values.sum(1) - total)
        shape = () if outputs is None else tuple(whole.output_shape)
        attributions = self._shaped(model, side_by_side(explained, shape))
        return (attributions, of_outputs(deltas, shape)) if return_convergence_delta else attributions
