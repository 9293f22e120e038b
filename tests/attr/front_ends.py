"""The table of all front ends, and how any of them is made and asked."""

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import (
    Attribution,
    GradientShap,
    IntegratedGradients,
    InternalInfluence,
    KernelShap,
    LayerAttribution,
    LayerConductance,
    LayerGradientShap,
    LayerIntegratedGradients,
    NeuronAttribution,
    NeuronConductance,
    NeuronGradientShap,
    NeuronIntegratedGradients,
    ShapleyValueSampling,
)
from torch import Tensor, nn

from captum_meta.attr import (
    MetaGradientShap,
    MetaIntegratedGradients,
    MetaInternalInfluence,
    MetaKernelShap,
    MetaLayerConductance,
    MetaLayerGradientShap,
    MetaLayerIntegratedGradients,
    MetaNeuronConductance,
    MetaNeuronGradientShap,
    MetaNeuronIntegratedGradients,
    MetaShapleyValueSampling,
)
from tests.attr.conftest import untrained

PEERS: dict[type[Attribution], type[Attribution]] = {
    KernelShap: MetaKernelShap,
    ShapleyValueSampling: MetaShapleyValueSampling,
    IntegratedGradients: MetaIntegratedGradients,
    GradientShap: MetaGradientShap,
    LayerIntegratedGradients: MetaLayerIntegratedGradients,
    LayerConductance: MetaLayerConductance,
    LayerGradientShap: MetaLayerGradientShap,
    InternalInfluence: MetaInternalInfluence,
    NeuronIntegratedGradients: MetaNeuronIntegratedGradients,
    NeuronConductance: MetaNeuronConductance,
    NeuronGradientShap: MetaNeuronGradientShap,
}
DISTRIBUTIONS = (GradientShap, LayerGradientShap, NeuronGradientShap)
"""Their baselines are a distribution, and cannot be left out."""
ADAPTED = (KernelShap, ShapleyValueSampling, IntegratedGradients, LayerIntegratedGradients)
LEARNED = {method: ours for method, ours in PEERS.items() if method not in (LayerGradientShap, InternalInfluence)}
FRONT_ENDS = list(PEERS.items())
SHAPLEY = FRONT_ENDS[:2]


def make(front_end: type[Attribution], model: Callable[..., Any], **arguments: Any) -> Any:
    learned = {"learner": untrained(front_end.kind)} if front_end in LEARNED.values() else {}  # type: ignore[attr-defined]
    return over(front_end, model, **learned, **arguments)


def over(method: type[Attribution], model: Callable[..., Any], **arguments: Any) -> Any:
    """The method over a model; of layers, over one that hands the inputs on to it; of neurons, over its own outputs."""
    if issubclass(method, (LayerAttribution, NeuronAttribution)):
        around = (Behind if issubclass(method, LayerAttribution) else Before)(model)
        return method(around, around.layer, **arguments)  # type: ignore[call-arg]
    return method(model, **arguments)  # type: ignore[call-arg]


class Behind(nn.Module):
    def __init__(self, model: Callable[..., Any]) -> None:
        super().__init__()
        self.layer, self.model = nn.Identity(), model
        self.eval() if not isinstance(model, nn.Module) else self.train(model.training)

    def forward(self, *inputs: Tensor) -> Tensor:
        answer: Tensor = self.model(*(self.layer(part) for part in inputs))
        return answer


class Before(Behind):
    def forward(self, *inputs: Tensor) -> Tensor:
        answer = self.model(*inputs)
        return self.layer(answer.unsqueeze(1) if answer.dim() == 1 else answer)  # type: ignore[no-any-return]


def asked(method: type[Attribution], x: Tensor | tuple[Tensor, ...], **given: Any) -> dict[str, Any]:
    """Arguments of ``attribute``: methods of neurons explain the neuron of the target, and some need baselines."""
    arguments = {"inputs": x, **given}
    if issubclass(method, DISTRIBUTIONS) and "baselines" not in given:
        shaped = x[0] if isinstance(x, (tuple, list)) else x
        zeros = torch.zeros_like(shaped)
        arguments["baselines"] = (zeros,) if isinstance(x, tuple) else zeros
    if issubclass(method, NeuronAttribution):
        arguments["neuron_selector"] = arguments.pop("target", 0)
        if issubclass(method, NeuronConductance):
            arguments["target"] = arguments["neuron_selector"]
    return arguments
