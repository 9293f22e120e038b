"""No adaptation: the meta-trained explainer alone."""

from __future__ import annotations

from captum_meta.learners.base import MetaLearner
from captum_meta.types import Explanations, Record


class ZeroShot(MetaLearner[Record]):
    """Explains every model with the meta-trained explainer as it is; :meth:`adapt` learns nothing."""

    def adapt(self, support: Explanations) -> None:
        return None
