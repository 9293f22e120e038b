"""Explainers from which a further run begins."""

from __future__ import annotations

from captum_meta.learners import load_learner
from captum_meta.nn import ShapleyExplainer, deepened


def deeper_explainer(path: str, depth: int) -> ShapleyExplainer:
    """The explainer of a saved or shipped learner with more blocks, which say the same until they are trained.

    Args:
        path: that was given to ``save``, or a shipped name such as ``"zero-shot"``.
        depth: blocks that it is to have.

    Raises:
        ValueError: if there is no such learner, or it has more blocks already.

    >>> deeper_explainer("zero-shot", 6).depth
    6
    """
    explainer = load_learner(path).explainer
    assert isinstance(explainer, ShapleyExplainer)
    return deepened(explainer, depth)
