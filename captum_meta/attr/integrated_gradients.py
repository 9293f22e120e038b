"""Drop-in replacement for ``captum.attr.IntegratedGradients``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

import torch
from captum.attr import IntegratedGradients
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._frontend import Frontend, Learner, count_examples, output_dtype
from captum_meta.evidence import Game, measure_path
from captum_meta.types import Evidence

_REFERENCE_STEPS = 200


class MetaIntegratedGradients(Frontend, IntegratedGradients):
    """Integrated Gradients from a few gradients, corrected by what f itself says along the path.

    Every row costs ``n_steps`` gradients and two evaluations. The correction vanishes as the quadrature converges.

    Args:
        forward_func: the model, as in Captum.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017.

    >>> import torch
    >>> MetaIntegratedGradients(lambda x: x[:, 0] * x[:, 1]).attribute(torch.tensor([[2.0, 3.0]]), n_steps=3)
    tensor([[3., 3.]])
    """

    kind = "path"

    def __init__(
        self, forward_func: Callable[..., Any], multiply_by_inputs: bool = True, *, learner: Learner = None
    ) -> None:
        IntegratedGradients.__init__(self, forward_func, multiply_by_inputs)
        self._set_learner(learner)

    @log_usage(part_of_slo=True)
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
            n_steps: gradients a row.
            internal_batch_size: rows of the model differentiated at once.
            return_convergence_delta: also return, for each row, the sum of the attributions before they were completed,
                minus f(input) - f(baseline).

        Returns:
            Attributions in the shapes of the inputs, and the delta ``(B,)`` if asked for.
        """
        is_tuple = _captum.is_tuple(inputs)
        count_examples(inputs)
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        _captum.validate_input(formatted, starts, n_steps, method)
        game = self._game(inputs, baselines, target, additional_forward_args, None, internal_batch_size)
        evidence, slopes = measure_path(game, _nodes(n_steps, method))
        prediction = self._explain(self._viewed(evidence, game), (n_steps, method))
        values = prediction.attributions
        if not self.multiplies_by_inputs:
            values = _multipliers(values, slopes, game)
        parts = game.players.of_elements(values.to(output_dtype(game, values)))
        attributions = _captum.format_output(is_tuple, parts)
        return (attributions, prediction.gap) if return_convergence_delta else attributions

    def _default_key(self, game: Game) -> Hashable:
        return (10, "gausslegendre")

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        assert isinstance(key, tuple)
        return measure_path(game, _nodes(*key))[0]

    def _reference(self, game: Game) -> Tensor:
        """A long run of Captum's own quadrature, ``(N, M)``."""
        slopes = game.slopes(_nodes(_REFERENCE_STEPS, "gausslegendre").to(game.inputs[0].dtype))
        assert slopes is not None
        weights = torch.tensor(_captum.approximation_parameters("gausslegendre")[0](_REFERENCE_STEPS))
        return (slopes[0].squeeze(-1) @ weights.to(slopes[0])) * _delta(game)


def _nodes(n_steps: int, method: str) -> Tensor:
    """Captum's own points of the path for ``method``."""
    points = torch.tensor(_captum.approximation_parameters(method)[1](n_steps), dtype=torch.float64)
    return points.clamp(1e-6, 1 - 1e-6)


def _delta(game: Game) -> Tensor:
    return torch.cat([(x - b).flatten(1) for x, b in zip(game.inputs, game.baselines, strict=True)], dim=1)


def _multipliers(values: Tensor, slopes: Tensor, game: Game) -> Tensor:
    """Attributions over (input - baseline), and the average gradient where input and baseline are the same."""
    delta = _delta(game).to(values)
    same = delta == 0
    return torch.where(same, slopes.mean(-1).to(values), values / torch.where(same, 1.0, delta))
