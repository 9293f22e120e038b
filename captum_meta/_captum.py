"""The one file that imports Captum's private names."""

from captum._utils.common import _expand_additional_forward_args as expand_additional_forward_args
from captum._utils.common import _expand_target as expand_target
from captum._utils.common import _format_additional_forward_args as format_additional_forward_args
from captum._utils.common import _format_feature_mask as format_feature_mask
from captum._utils.common import _format_output as format_output
from captum._utils.common import _format_outputs as format_outputs
from captum._utils.common import _format_tensor_into_tuples as format_tensor_into_tuples
from captum._utils.common import _is_tuple as is_tuple
from captum._utils.common import _run_forward as run_forward
from captum._utils.common import _select_targets as select_targets
from captum._utils.common import _verify_select_neuron as verify_select_neuron
from captum._utils.progress import progress
from captum._utils.typing import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum.attr._utils.approximation_methods import approximation_parameters
from captum.attr._utils.common import _format_callable_baseline as format_callable_baseline
from captum.attr._utils.common import _format_input_baseline as format_input_baseline
from captum.attr._utils.common import _tensorize_baseline as tensorize_baseline
from captum.attr._utils.common import _validate_input as validate_input

__all__ = [
    "BaselineType",
    "TargetType",
    "TensorOrTupleOfTensorsGeneric",
    "approximation_parameters",
    "expand_additional_forward_args",
    "expand_target",
    "format_additional_forward_args",
    "format_callable_baseline",
    "format_feature_mask",
    "format_input_baseline",
    "format_output",
    "format_outputs",
    "format_tensor_into_tuples",
    "is_tuple",
    "progress",
    "run_forward",
    "select_targets",
    "tensorize_baseline",
    "validate_input",
    "verify_select_neuron",
]
