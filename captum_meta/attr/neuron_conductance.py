"""Drop-in replacement for ``captum.attr.NeuronConductance``."""

from __future__ import annotations

from typing import Any

import torch
from captum.attr import NeuronConductance
from captum.log import log_usage

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._frontend import of_inputs
from captum_meta.attr._graph import carry_gradient, differences
from captum_meta.attr._graph_layers import LayersOnPath, neuron_conductance
from captum_meta.attr._layers import OfNeurons, beside_zeros, outputs_of, path_points, path_weights
from captum_meta.attr._path import multipliers, real
from captum_meta.estimators.quadrature import MAX_INTERPOLATED
from captum_meta.evidence import Game, PathPlan
from captum_meta.evidence.conductance import measure_neuron
from captum_meta.games.layer_path import NeuronConductanceModel, NeuronModel, Selector
from captum_meta.nn.explainer import gap_shares


class MetaNeuronConductance(OfNeurons, NeuronConductance):
    r"""Conductance of each input through a neuron along the path of the inputs, from a few gradients.

    .. math:: C_i = (x_i - b_i) \int_0^1 \frac{\partial f}{\partial h} \frac{\partial h}{\partial x_i}\, dt

    The neuron's values along the path determine the sum; the meta-learned explainer shares out what the quadrature
    misses of it. A row costs ``n_steps`` gradients and six evaluations.

    Args:
        forward_func: the model, as in Captum.
        layer: the module that the neuron belongs to.
        device_ids: as in Captum, not needed: a model in ``DataParallel`` is run through its ``module``, on its first device.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Dhamdhere, Sundararajan and Yan, *How Important Is a Neuron?*, ICLR 2019.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> MetaNeuronConductance(model, model[1]).attribute(torch.randn(5, 4), 2, target=1).shape
    torch.Size([5, 4])
    """

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        neuron_selector: Selector,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        attribute_to_neuron_input: bool = False,
        grad_kwargs: dict[str, Any] | None = None,
        *,
        create_graph: bool = False,
    ) -> TensorOrTupleOfTensorsGeneric:
        """Explain rows; arguments as in ``captum.attr.NeuronConductance.attribute`` but for these.

        Args:
            inputs, neuron_selector, baselines, target, additional_forward_args: as in Captum.
            n_steps: gradients per row; 32 by default, more exact than Captum's 50. Up to 32 are placed for each row.
            method: as in Captum, whose default here is another one, ``"riemann_trapezoid"``.
            internal_batch_size: rows of the model differentiated at once, at most. None: a number is chosen.
            attribute_to_neuron_input: explain what the layer is given instead of what it gives.
            grad_kwargs: not needed: inputs that the neuron does not depend on get 0.
            create_graph: attributions carry a gradient to the model's parameters as well as to the inputs, so that a loss of
                them can train it. Gradients are then taken at the ``n_steps`` points of ``method`` (8 by default);
                what their quadrature misses is not shared out.

        Returns:
            Attributions in the shapes of the inputs.
        """
        is_tuple = _captum.is_tuple(inputs)
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        given = (real(inputs), baselines, target, additional_forward_args)
        whole = self._whole_game(*given, internal_batch_size, n_steps, method)
        neuron = (self._model, self._layers[0], neuron_selector, attribute_to_neuron_input)
        if create_graph:
            path = LayersOnPath.of(NeuronModel(*neuron), whole, real(inputs), baselines)
            return _captum.format_output(is_tuple, neuron_conductance(path, n_steps, method, self.multiplies_by_inputs))
        outputs_of(whole)
        n_steps = n_steps or MAX_INTERPOLATED
        extra = whole.batch.extra
        ends = Game(NeuronModel(*neuron), whole.inputs, whole.baselines, None, extra, None, internal_batch_size).at(
            torch.tensor([0.0, 1.0])
        )
        model = NeuronConductanceModel(*neuron, whole.batch.target, whole.n_examples)
        nothing = torch.zeros(whole.n_examples, 1, dtype=ends.dtype, device=ends.device)
        game = beside_zeros(model, whole, (nothing, nothing), internal_batch_size, None, whole.batch.everyone)
        evidence, gradients = measure_neuron(game, ends.mT, path_points(whole, n_steps, method), n_steps)
        average = (gradients * path_weights(evidence, n_steps, method).unsqueeze(-2)).sum(-1)
        if not self.multiplies_by_inputs:
            values = average
        elif evidence.points.shape[1] <= MAX_INTERPOLATED:
            values = self._explain(evidence, PathPlan(n_steps, method)).attributions
        else:
            values = average * whole.difference
            gap = (evidence.total - values.sum(1)).unsqueeze(1)
            values = values + gap * gap_shares(values.abs(), evidence.players)
        if self.multiplies_by_inputs and carry_gradient(*formatted, *starts):
            shares = of_inputs(multipliers(values, average, whole), whole)
            parts = tuple(part * d for part, d in zip(shares, differences(formatted, starts), strict=True))
            return _captum.format_output(is_tuple, parts)
        return _captum.format_output(is_tuple, of_inputs(values, whole))
