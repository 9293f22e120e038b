"""Drop-in replacement for ``captum.attr.ShapleyValueSampling``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.attr import ShapleyValueSampling
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._frontend import Learner, count_examples
from captum_meta.attr._shapley import ShapleyFrontend, rows_at_once


class MetaShapleyValueSampling(ShapleyFrontend, ShapleyValueSampling):
    """Shapley values, with the budget counted in permutations.

    The coalitions are not those of permutations but the more telling ones of :class:`MetaKernelShap`; a permutation
    pays for M of them. Without a target, all outputs of the model are explained from the same evaluations.

    Args:
        forward_func: the model, as in Captum.
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Strumbelj and Kononenko, *An Efficient Explanation of Individual Classifications using Game Theory*, 2010.

    >>> import torch
    >>> MetaShapleyValueSampling(lambda x: x @ torch.eye(2)).attribute(torch.tensor([[1.0, 2.0]]))
    tensor([[[1., 0.],
             [0., 2.]]])
    """

    def __init__(self, forward_func: Callable[..., Any], *, learner: Learner = None) -> None:
        ShapleyValueSampling.__init__(self, forward_func)
        self._set_learner(learner)

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        n_samples: int | None = None,
        perturbations_per_eval: int = 1,
        show_progress: bool = False,
        *,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        seed: int = 0,
    ) -> TensorOrTupleOfTensorsGeneric | tuple[TensorOrTupleOfTensorsGeneric, Tensor]:
        """Explain rows; arguments as in ``captum.attr.ShapleyValueSampling.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask: as in Captum.
            n_samples: permutations, worth M coalitions each. None: all 2M of the border where M <= 32, else none;
                0: gradients only.
            perturbations_per_eval: coalitions of all rows evaluated at once; 1 lets us choose.
            show_progress: show how many of the batches of coalitions have been evaluated.
            tolerance, return_error_estimate: as for :class:`MetaKernelShap`.
            seed: of the coalitions sampled inside the border.

        Returns:
            Attributions in the shapes of the inputs; ``(B, *outputs, *features)`` where no target selects one output. With
            the estimates ``(B, *outputs)`` if asked for.
        """
        is_tuple = _captum.is_tuple(inputs)
        max_rows = rows_at_once(perturbations_per_eval, count_examples(inputs, empty=ValueError))
        label = f"{self.get_name()} attribution" if show_progress else None
        game = self._game(inputs, baselines, target, additional_forward_args, feature_mask, max_rows, label)
        budget = None if n_samples is None else n_samples * game.players.count
        if tolerance is None and not return_error_estimate:
            values = self._predict(game, budget, seed)
        else:
            values, bounds = self._predict_within(game, budget, tolerance, seed)
        outputs = game.output_shape or ()
        shaped = tuple(part.reshape(game.n_rows, *outputs, *part.shape[1:]) for part in self._elements(game, values))
        attributions = _captum.format_output(is_tuple, shaped)
        return (attributions, bounds.reshape(game.n_rows, *outputs)) if return_error_estimate else attributions
