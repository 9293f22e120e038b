"""MAML whose fast weights are small networks that learn the explained model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from captum_meta.learners.feature_maml import FeatureMAML
from captum_meta.learners.surrogate import SurrogateStacking
from captum_meta.nn import EvidenceEncoder, Explainer
from captum_meta.nn.descent import LearnedDescent
from captum_meta.nn.lesson import Lesson
from captum_meta.types import State


class SurrogateMAML(SurrogateStacking, FeatureMAML):
    r"""Two inner loops: over the networks that learn the explained model, and over the features of its explanations.

    As :class:`SurrogateStacking`, but its networks are :class:`captum_meta.nn.descent.LearnedDescent`'s, which takes a few
    steps with learned rates from weights of learned size; and what is stacked with them is :class:`FeatureMAML`.

    Args:
        explainer: the meta-trained explainer.
        descent_steps: of the networks.
        steps: of the loop over features.
        encoder, shared, own, caution, features: as in :class:`DeepKernelTransfer`.
    """

    def __init__(
        self,
        explainer: Explainer,
        descent_steps: int = 60,
        steps: int = 8,
        encoder: EvidenceEncoder | Mapping[str, Any] | None = None,
        shared: int = 32,
        own: int = 16,
        caution: float = 1.0,
        features: int = 64,
    ) -> None:
        FeatureMAML.__init__(
            self, explainer, steps=steps, encoder=encoder, shared=shared, own=own, caution=caution, features=features
        )
        self.descent = LearnedDescent(descent_steps)

    def arguments(self) -> dict[str, object]:
        return {"descent_steps": self.descent.steps, **super().arguments()}

    def learned(self, lesson: Lesson, n_heads: int) -> State:
        return self.descent(lesson, n_heads)
