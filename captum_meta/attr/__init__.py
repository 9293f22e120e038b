"""Meta-attribution methods: Captum's interface, a meta-learned explainer behind it.

>>> import torch
>>> from captum_meta.attr import MetaKernelShap
>>> model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 2))
>>> MetaKernelShap(model).attribute(torch.randn(3, 4), target=1).shape
torch.Size([3, 4])
"""

from captum_meta.attr._adaptation import Adaptation
from captum_meta.attr._recommendation import Recommendation
from captum_meta.attr.calibrated import CalibratedAttribution
from captum_meta.attr.general import MetaAttribution
from captum_meta.attr.gradient_shap import MetaGradientShap
from captum_meta.attr.integrated_gradients import MetaIntegratedGradients
from captum_meta.attr.internal_influence import MetaInternalInfluence
from captum_meta.attr.kernel_shap import MetaKernelShap
from captum_meta.attr.layer_conductance import MetaLayerConductance
from captum_meta.attr.layer_gradient_shap import MetaLayerGradientShap
from captum_meta.attr.layer_integrated_gradients import MetaLayerIntegratedGradients
from captum_meta.attr.neuron_conductance import MetaNeuronConductance
from captum_meta.attr.neuron_gradient_shap import MetaNeuronGradientShap
from captum_meta.attr.neuron_integrated_gradients import MetaNeuronIntegratedGradients
from captum_meta.attr.shap_explainer import MetaShapExplainer
from captum_meta.attr.shapley_value import MetaShapleyValueSampling

__all__ = [
    "Adaptation",
    "CalibratedAttribution",
    "MetaAttribution",
    "MetaGradientShap",
    "MetaIntegratedGradients",
    "MetaInternalInfluence",
    "MetaKernelShap",
    "MetaLayerConductance",
    "MetaLayerGradientShap",
    "MetaLayerIntegratedGradients",
    "MetaNeuronConductance",
    "MetaNeuronGradientShap",
    "MetaNeuronIntegratedGradients",
    "MetaShapExplainer",
    "MetaShapleyValueSampling",
    "Recommendation",
]
