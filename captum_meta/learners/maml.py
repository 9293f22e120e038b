"""Model-agnostic meta-learning."""

from __future__ import annotations

from collections.abc import Sequence

from captum_meta.learners._config import HypergradientArgument, LossArgument
from captum_meta.learners._gradient import GradientLearner
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer
from captum_meta.optim import SGD
from captum_meta.optim.rules import clipped


class MAML(GradientLearner):
    r"""An initialisation from which a few gradient steps explain well (Finn et al. 2017).

    .. math:: \theta_{s+1} = \theta_s - \alpha_s \nabla L_{support}(\theta_s), \qquad
        \min_{\theta_0, \alpha} \sum_{tasks} L_{query}(\theta_S)

    Rates are learned for each tensor at each step (MAML++). With ``clip=None`` this is the method as it was published; with
    ``hypergradient=FirstOrder()`` first-order MAML.

    Args:
        explainer: the network whose parameters are the initialisation.
        fast: names of the parameters that adapt, as patterns; all by default.
        steps: of the inner loop.
        rate: from which the rates are learned.
        hypergradient: how training differentiates the inner loop.
        inner_loss: what the inner loop minimises; a callable of (predicted, reference, variance).
        zero_shot: weight of the loss before adaptation in meta-training.
        outer_loss: what meta-training minimises, of the query rows; given as ``inner_loss``.
        clip: length to which a task's inner gradient is cut; None: it is taken as it is.
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
            lambda values: clipped(SGD(list(values), steps, rate), clip),
            hypergradient,
            inner_loss,
            zero_shot,
            outer_loss,
        )
        self.clip = clip

    def arguments(self) -> dict[str, object]:
        return {**super().arguments(), "clip": self.clip}
