"""The one file that imports Captum's private names."""

from captum._utils.common import _format_tensor_into_tuples as format_tensor_into_tuples
from captum._utils.common import _select_targets as select_targets

__all__ = ["format_tensor_into_tuples", "select_targets"]
