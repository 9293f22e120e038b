"""Starting points of further training."""

from __future__ import annotations

from captum_meta.learners import load_learner
from captum_meta.learners._kernel import KernelRegression
from captum_meta.nn import ShapleyExplainer, deepened


def deeper_explainer(path: str, depth: int) -> ShapleyExplainer:
    """The explainer of a saved or shipped learner with more blocks, which change nothing until they are trained.

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


def frozen_kernel(name: str) -> KernelRegression:
    """A saved or shipped learner upon which networks are stacked, as it is.

    Args:
        name: path that was given to ``save``, or a shipped name such as ``"feature-maml"``.

    Raises:
        ValueError: if there is no such learner, or it is not a kernel regression.

    >>> type(frozen_kernel("feature-maml")).__name__
    'FeatureMAML'
    """
    learner = load_learner(name)
    if not isinstance(learner, KernelRegression):
        raise ValueError(
            f"{name!r} is a {type(learner).__name__}: networks are stacked upon a DeepKernelTransfer, a FeatureMAML or a "
            "KernelRidge."
        )
    return learner
