"""Drop-in replacement for ``captum.attr.NeuronIntegratedGradients``."""

from __future__ import annotations

from typing import Any

from captum.attr import NeuronIntegratedGradients
from captum.log import log_usage
from torch import Tensor

from captum_meta._captum import TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._layers import OfNeurons
from captum_meta.attr.integrated_gradients import MetaIntegratedGradients
from captum_meta.games.layer_path import NeuronModel, Selector


class MetaNeuronIntegratedGradients(OfNeurons, NeuronIntegratedGradients):
    """Integrated Gradients of a neuron inside the model: those of :class:`MetaIntegratedGradients` for the model up to it.

    Args:
        forward_func: the model, as in Captum.
        layer: the module that the neuron belongs to.
        device_ids: as in Captum, not needed: a model in ``DataParallel`` is run through its ``module``, on its first device.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> x = torch.randn(5, 4)
    >>> values = MetaNeuronIntegratedGradients(model, model[1]).attribute(x, 2)
    >>> torch.allclose(values.sum(1), (model[:2](x) - model[:2](0 * x))[:, 2], atol=1e-5)
    True
    """

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        neuron_selector: Selector,
        baselines: Any = None,
        additional_forward_args: Any = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        attribute_to_neuron_input: bool = False,
        *,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        create_graph: bool = False,
    ) -> TensorOrTupleOfTensorsGeneric | tuple[TensorOrTupleOfTensorsGeneric, Tensor]:
        """Explain rows; arguments as in ``captum.attr.NeuronIntegratedGradients.attribute`` but for these.

        Args:
            inputs, neuron_selector, baselines, additional_forward_args, method, attribute_to_neuron_input: as in Captum.
            n_steps, internal_batch_size, tolerance, return_error_estimate, create_graph: as in
                :meth:`MetaIntegratedGradients.attribute`.

        Returns:
            Attributions in the shapes of the inputs, then the estimates ``(B,)``, if asked for.
        """
        neuron = NeuronModel(self._model, self._layers[0], neuron_selector, attribute_to_neuron_input)
        method_of_inputs = MetaIntegratedGradients(neuron, self.multiplies_by_inputs, learner=self._learner.given)
        x, b, extra = self._moved((inputs, baselines, additional_forward_args))
        return method_of_inputs.attribute.__wrapped__(
            method_of_inputs,
            x,
            b,
            additional_forward_args=extra,
            n_steps=n_steps,
            method=method,
            internal_batch_size=internal_batch_size,
            tolerance=tolerance,
            return_error_estimate=return_error_estimate,
            create_graph=create_graph,
        )
