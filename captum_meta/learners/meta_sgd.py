"""Meta-SGD."""

from __future__ import annotations

from captum_meta.learners._gradient import GradientLearner
from captum_meta.optim import ElementwiseSGD, Tensors, UpdateRule


class MetaSGD(GradientLearner):
    r"""MAML whose rates are learned for every weight, direction included (Li et al. 2017).

    .. math:: \theta_{s+1} = \theta_s - \alpha \circ \nabla L_{support}(\theta_s)

    Args: those of :class:`~captum_meta.learners.GradientLearner`.
    """

    def make_rule(self, parameters: Tensors, rate: float) -> UpdateRule:
        return ElementwiseSGD({name: value.shape for name, value in parameters.items()}, rate)
