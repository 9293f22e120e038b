"""No adaptation: what the explainer learned from other models is all it uses."""

from __future__ import annotations

from torch import Tensor

from captum_meta.learners.base import MetaLearner
from captum_meta.losses import relative_errors
from captum_meta.types import Explanations, ExplanationTask, Record

_FLOOR, _LARGE, _LARGEST = 5e-4, 1.5, 4.0


class ZeroShot(MetaLearner[Record]):
    """Explains every model with the meta-trained explainer as it is; :meth:`adapt` learns nothing."""

    def adapt(self, support: Explanations) -> None:
        return None

    def loss(self, tasks: ExplanationTask) -> Tensor:
        r"""Of each task's relative squared error e, the mean of :math:`\log(.0005 + e) + 1.5 \min(e, 4)`.

        The logarithm alone makes a halved error worth the same everywhere; the second term keeps errors from exceeding 1,
        which the logarithm hardly forbids.
        """
        query = tasks.query
        errors = relative_errors(self.predict(None, query.evidence), query.attributions, query.variance)
        return ((_FLOOR + errors).log() + _LARGE * errors.clamp(max=_LARGEST)).mean()
