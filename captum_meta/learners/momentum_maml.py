"""MAML of a long inner loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captum_meta.learners._gradient import GradientLearner
from captum_meta.nn import Explainer
from captum_meta.optim import Hypergradient, MomentumSGD, Reversible, Tensors, UpdateRule


class MomentumMAML(GradientLearner):
    r"""MAML whose inner loop is long: gradient descent with momentum, run backwards in training (Maclaurin et al. 2015).

    .. math:: v_{s+1} = \mu_s v_s - \alpha_s \nabla L_{support}(\theta_s), \qquad \theta_{s+1} = \theta_s + v_{s+1}

    The initialisation, and a rate and a momentum for each tensor at each step, are learned through hundreds of steps whose
    states need not be kept. ``hypergradient=Segmented()`` is the same in ordinary
    arithmetic, at some more memory.

    Args:
        explainer, fast, steps, rate: as in :class:`~captum_meta.learners.GradientLearner`.
        momentum: from which the momenta are learned, between 0 and 1.
        options: the further arguments of :class:`~captum_meta.learners.GradientLearner`.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("head.*",),
        steps: int = 100,
        rate: float = 0.01,
        *,
        momentum: float = 0.9,
        **options: Any,
    ) -> None:
        self.momentum = momentum
        super().__init__(explainer, fast, steps, rate, **options)

    def make_rule(self, parameters: Tensors, rate: float) -> UpdateRule:
        return MomentumSGD(list(parameters), self.steps, rate, self.momentum)

    def own_hypergradient(self) -> Hypergradient:
        return Reversible()
