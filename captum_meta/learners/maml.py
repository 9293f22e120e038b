"""Model-agnostic meta-learning."""

from __future__ import annotations

from captum_meta.learners._gradient import GradientLearner
from captum_meta.optim import SGD, Tensors, UpdateRule


class MAML(GradientLearner):
    r"""An initialisation from which a few gradient steps explain well (Finn et al. 2017).

    .. math:: \theta_{s+1} = \theta_s - \alpha_s \nabla L_{support}(\theta_s), \qquad
        \min_{\theta_0, \alpha} \sum_{tasks} L_{query}(\theta_S)

    Rates are learned for each tensor at each step (MAML++). With ``clip=None`` this is the method as it was published; with
    ``hypergradient=FirstOrder()`` first-order MAML.

    Args: those of :class:`~captum_meta.learners.GradientLearner`.
    """

    def make_rule(self, parameters: Tensors, rate: float) -> UpdateRule:
        return SGD(list(parameters), self.steps, rate)
