"""Meta-SGD."""

from __future__ import annotations

from collections.abc import Sequence

from captum_meta.learners._config import HypergradientArgument, LossArgument
from captum_meta.learners._gradient import GradientLearner
from captum_meta.losses import scaled_squared_error
from captum_meta.nn import Explainer
from captum_meta.optim import Clipped, ElementwiseSGD


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
    ) -> None:
        super().__init__(
            explainer,
            fast,
            steps,
            lambda values: Clipped(ElementwiseSGD({name: value.shape for name, value in values.items()}, rate), 1.0),
            hypergradient,
            inner_loss,
            zero_shot,
        )
