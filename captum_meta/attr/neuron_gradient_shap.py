"""Drop-in replacement for ``captum.attr.NeuronGradientShap``."""

from __future__ import annotations

from typing import Any

from captum.attr import NeuronGradientShap
from captum.log import log_usage
from torch import Tensor

from captum_meta._captum import TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._layers import OfNeurons
from captum_meta.attr.gradient_shap import MetaGradientShap
from captum_meta.games.layer_path import NeuronModel, Selector


class MetaNeuronGradientShap(OfNeurons, NeuronGradientShap):
    """Expected gradients of a neuron inside the model: those of :class:`MetaGradientShap` for the model up to it.

    Args:
        forward_func: the model, as in Captum.
        layer: the module that the neuron belongs to.
        device_ids: as in Captum, not needed: a model in ``DataParallel`` is run through its ``module``, on its first device.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Erion et al., *Improving performance of deep learning models with axiomatic attribution priors and expected
    gradients*, Nature Machine Intelligence 2021.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> MetaNeuronGradientShap(model, model[1]).attribute(torch.randn(5, 4), 2, torch.randn(20, 4)).shape
    torch.Size([5, 4])
    """

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        neuron_selector: Selector,
        baselines: Any,
        n_samples: int | None = None,
        stdevs: float | tuple[float, ...] = 0.0,
        additional_forward_args: Any = None,
        attribute_to_neuron_input: bool = False,
        *,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        seed: int = 0,
        create_graph: bool = False,
    ) -> TensorOrTupleOfTensorsGeneric | tuple[TensorOrTupleOfTensorsGeneric, Tensor]:
        """Explain rows; arguments as in ``captum.attr.NeuronGradientShap.attribute`` but for these.

        Args:
            inputs, neuron_selector, baselines, stdevs, additional_forward_args, attribute_to_neuron_input: as in Captum.
            n_samples, tolerance, return_error_estimate, seed, create_graph: as in :meth:`MetaGradientShap.attribute`.

        Returns:
            Attributions in the shapes of the inputs, then the estimates ``(B,)``, if asked for.
        """
        neuron = NeuronModel(self._model, self._layers[0], neuron_selector, attribute_to_neuron_input)
        method = MetaGradientShap(neuron, self.multiplies_by_inputs, learner=self._learner.given if self._learned else None)
        x, b, extra = self._moved((inputs, baselines, additional_forward_args))
        return method.attribute.__wrapped__(
            method,
            x,
            b,
            n_samples,
            stdevs,
            additional_forward_args=extra,
            tolerance=tolerance,
            return_error_estimate=return_error_estimate,
            seed=seed,
            create_graph=create_graph,
        )
