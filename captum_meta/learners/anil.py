"""Almost no inner loop."""

from __future__ import annotations

from collections.abc import Sequence

from captum_meta.learners._config import HypergradientArgument, LossArgument
from captum_meta.learners.maml import MAML
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer


class ANIL(MAML):
    """MAML of the last layer alone: what it reads is learned by the outer loop only (Raghu et al. 2020).

    Args: those of :class:`MAML`.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("head.*",),
        steps: int = 5,
        rate: float = 0.01,
        hypergradient: HypergradientArgument = None,
        inner_loss: LossArgument = scaled_squared_error,
        zero_shot: float = 0.0,
        outer_loss: LossArgument = relative_squared_error,
        clip: float | None = 1.0,
    ) -> None:
        super().__init__(explainer, fast, steps, rate, hypergradient, inner_loss, zero_shot, outer_loss, clip)
