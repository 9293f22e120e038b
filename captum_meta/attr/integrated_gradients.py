"""Drop-in replacement for ``captum.attr.IntegratedGradients``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.attr import IntegratedGradients
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._frontend import Learner, count_examples
from captum_meta.attr._path import PathFrontend


class MetaIntegratedGradients(PathFrontend, IntegratedGradients):
    """Integrated Gradients from a few gradients, corrected by what f itself says along the path.

    Every row costs ``n_steps`` gradients and three evaluations: f at the two ends of the path, and halfway, which tells
    where along this row's path gradients are worth most. The correction vanishes as the quadrature converges.

    Args:
        forward_func: the model, as in Captum.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017.

    >>> import torch
    >>> MetaIntegratedGradients(lambda x: x[:, 0] * x[:, 1]).attribute(torch.tensor([[2.0, 3.0]]), n_steps=3)
    tensor([[3., 3.]])
    """

    def __init__(
        self, forward_func: Callable[..., Any], multiply_by_inputs: bool = True, *, learner: Learner = None
    ) -> None:
        IntegratedGradients.__init__(self, forward_func, multiply_by_inputs)
        self._set_learner(learner)

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int = 10,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
    ) -> TensorOrTupleOfTensorsGeneric | tuple[TensorOrTupleOfTensorsGeneric, Tensor]:
        """Explain rows; arguments as in ``captum.attr.IntegratedGradients.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, method: as in Captum.
            n_steps: gradients a row. ``method="gausslegendre"`` places 2 to 32 of them for each row
                (:func:`~captum_meta.estimators.path_nodes`); one, more, and the other methods take Captum's own points.
            internal_batch_size: rows of the model differentiated at once.
            return_convergence_delta: also return, for each row, what the attributions' sum would miss of
                f(input) - f(baseline) without the correction.

        Returns:
            Attributions in the shapes of the inputs, and the delta ``(B,)`` if asked for.
        """
        is_tuple = _captum.is_tuple(inputs)
        count_examples(inputs)
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        _captum.validate_input(formatted, starts, n_steps, method)
        game = self._game(inputs, baselines, target, additional_forward_args, None, internal_batch_size)
        parts, delta = self._integrate(game, n_steps, method)
        attributions = _captum.format_output(is_tuple, parts)
        return (attributions, delta) if return_convergence_delta else attributions
