"""Drop-in replacement for ``captum.attr.ShapleyValueSampling``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Literal

import torch
from captum.attr import ShapleyValueSampling
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._frontend import Learner, count_examples
from captum_meta.attr._pair_budgets import affordable_pairs
from captum_meta.attr._selection import rows_at_once, selection
from captum_meta.attr._shapley import BOUND_OVER_ERROR, ShapleyFrontend
from captum_meta.estimators import permutation_variance
from captum_meta.evidence.shapley import BORDER_PLAYERS
from captum_meta.games import MeanGame
from captum_meta.types import Evidence

_PERMUTATIONS = 25
"""Captum's default."""
_FIRST_ROUND = 4
"""Coalitions per player that every row gets."""


class MetaShapleyValueSampling(ShapleyFrontend, ShapleyValueSampling):
    """Shapley values; the budget counts permutations, as in Captum.

    The coalitions are not those of permutations but the more informative ones of :class:`MetaKernelShap`; a permutation
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

    counts_permutations = True

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
        perturbations_per_eval: int | None = None,
        show_progress: bool = False,
        *,
        background: TensorOrTupleOfTensorsGeneric | None = None,
        outputs: Literal["all"] | Sequence[int] | None = None,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        seed: int = 0,
    ) -> TensorOrTupleOfTensorsGeneric | tuple[TensorOrTupleOfTensorsGeneric, Tensor]:
        """Explain rows; arguments as in ``captum.attr.ShapleyValueSampling.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask: as in Captum.
            n_samples: permutations, worth M coalitions each, M being a row's own number of players. None: each row is given
                coalitions in rounds until it is as exact as Captum's default of 25 permutations would be, 25M at most;
                beyond 256 players gradients only, with a warning. 0: gradients only.
            perturbations_per_eval: the most coalitions of all rows that are evaluated at once; None chooses.
            show_progress: show how many of the batches of coalitions have been evaluated.
            background, outputs, tolerance, return_error_estimate: as for :class:`MetaKernelShap`.
            seed: of the coalitions sampled, which have 2 to M - 2 of a row's M players.

        Returns:
            Attributions in the shapes of the inputs; ``(B, *outputs, *features)`` where no target selects one output, and
            ``(*outputs, *features)`` where the model answers for the whole batch at once. With the estimates, one for each
            row and output, if asked for.
        """
        is_tuple = _captum.is_tuple(inputs)
        max_rows = rows_at_once(perturbations_per_eval, count_examples(inputs, empty=ValueError))
        label = f"{self.get_name()} attribution" if show_progress else None
        model_arguments = (selection(target, outputs), additional_forward_args, feature_mask, max_rows, label)
        game = self._mean_game(inputs, baselines, background, *model_arguments)
        plan = self._plan(n_samples, seed, per_player=True)
        if isinstance(game, MeanGame):
            pairs = (_PERMUTATIONS if n_samples is None else n_samples) * game.mask.sum(1)
            pairs = pairs if n_samples is not None else affordable_pairs(game, pairs, tolerance)
            values, bounds = self._predict_mean(game, pairs, tolerance, return_error_estimate, seed)
        elif tolerance is not None:
            values, bounds = self._predict_within(game, plan, tolerance)
        elif n_samples is None and game.players.count <= BORDER_PLAYERS:
            most, first = replace(plan, coalitions=_PERMUTATIONS), _FIRST_ROUND * game.players.mask.sum(1)
            values, bounds = self._predict_in_rounds(game, most, first, _as_exact_as_permutations)
        else:
            values, bounds = self._predict(game, plan, return_error_estimate)
        attributions = self._shaped(game, values, game.answers, is_tuple)
        return (attributions, bounds.reshape(game.answers)) if return_error_estimate else attributions


def _as_exact_as_permutations(rows: Tensor, evidence: Evidence, attributions: Tensor, bounds: Tensor) -> Tensor:
    """Whether the error that the bound implies is below that of 25 permutations."""
    values = attributions.double()
    unit = values.abs().amax(-1)
    unit = torch.where(unit > 0, unit, 1.0)  # the squares of very small outputs would vanish
    expected = permutation_variance(evidence.to(dtype=torch.float64).times(1 / unit)) / _PERMUTATIONS
    return bounds / BOUND_OVER_ERROR * (values / unit.unsqueeze(-1)).square().sum(-1) <= expected
