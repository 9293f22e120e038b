"""Meta-SGD."""

from __future__ import annotations

from collections.abc import Sequence

from captum_meta.learners._config import HypergradientArgument, LossArgument
from captum_meta.learners._gradient import GradientLearner
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer
from captum_meta.optim import ElementwiseSGD
from captum_meta.optim.rules import clipped


class MetaSGD(GradientLearner):
    r"""MAML whose rates are learned for every weight, direction included (Li et al. 2017).

    .. math:: \theta_{s+1} = \theta_s - \alpha \circ \nabla L_{support}(\theta_s)

    Args: those of :class:`MAML`.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("*",),
        steps: int = 5,
        rate: float = 0.01,
        hypergradient: HypergradientArgument = None,
        inner_loss: LossArgument = scaled_squared_error,
        zero_shot: float = 0.0,
        outer_loss: LossArgument = relative_squared_error,
        clip: float | None = 1.0,
    ) -> None:
        super().__init__(
            explainer,
            fast,
            steps,
            lambda values: clipped(ElementwiseSGD({name: value.shape for name, value in values.items()}, rate), clip),
            hypergradient,
            inner_loss,
            zero_shot,
            outer_loss,
        )
        self.clip = clip

    def arguments(self) -> dict[str, object]:
        return {**super().arguments(), "clip": self.clip}
