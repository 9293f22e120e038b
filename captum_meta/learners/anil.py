"""Almost no inner loop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from captum_meta.learners.maml import MAML
from captum_meta.nn import Explainer


class ANIL(MAML):
    """MAML of the last layer alone: what it reads is learned by the outer loop only (Raghu et al. 2020).

    Args: those of :class:`~captum_meta.learners.GradientLearner`; ``fast`` is the last layer by default.
    """

    def __init__(
        self, explainer: Explainer, fast: Sequence[str] = ("head.*",), steps: int = 5, rate: float = 0.01, **options: Any
    ) -> None:
        super().__init__(explainer, fast, steps, rate, **options)
