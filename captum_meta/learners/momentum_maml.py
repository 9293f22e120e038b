"""MAML of a long inner loop."""

from __future__ import annotations

from collections.abc import Sequence

from captum_meta.learners._config import HypergradientArgument, LossArgument
from captum_meta.learners._gradient import GradientLearner
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer
from captum_meta.optim import MomentumSGD, Reversible
from captum_meta.optim.rules import clipped


class MomentumMAML(GradientLearner):
    r"""MAML whose inner loop is long: gradient descent with momentum, run backwards in training (Maclaurin et al. 2015).

    .. math:: v_{s+1} = \mu_s v_s - \alpha_s \nabla L_{support}(\theta_s), \qquad \theta_{s+1} = \theta_s + v_{s+1}

    The initialisation, and a rate and a momentum for each tensor at each step, are learned through hundreds of steps whose
    states need not be kept. ``hypergradient=Segmented()`` is the same in ordinary
    arithmetic, at some more memory.

    Args:
        explainer: the network whose parameters are the initialisation.
        fast: names of the parameters that adapt, as patterns; the last layer by default.
        steps: of the inner loop.
        rate: from which the rates are learned.
        momentum: from which the momenta are learned, between 0 and 1.
        hypergradient: how training differentiates the inner loop.
        inner_loss: what the inner loop minimises; a callable of (predicted, reference, variance).
        zero_shot: weight of the loss before adaptation in meta-training.
        outer_loss: what meta-training minimises, of the query rows; given as ``inner_loss``.
        clip: length to which a task's inner gradient is cut; None: it is taken as it is.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("head.*",),
        steps: int = 100,
        rate: float = 0.01,
        momentum: float = 0.9,
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
            lambda values: clipped(MomentumSGD(list(values), steps, rate, momentum), clip),
            hypergradient or Reversible(),
            inner_loss,
            zero_shot,
            outer_loss,
        )
        self.clip = clip

    def arguments(self) -> dict[str, object]:
        return {**super().arguments(), "clip": self.clip}
