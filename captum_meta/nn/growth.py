"""Deeper networks that begin as a shallower one."""

from __future__ import annotations

from torch import nn

from captum_meta.nn.shapley import ShapleyExplainer


def deepened(explainer: ShapleyExplainer, depth: int) -> ShapleyExplainer:
    """An explainer of more blocks that answers the same until it is trained (Chen, Goodfellow and Shlens 2016).

    The new blocks stand behind the old ones and add nothing, as their last layers are zero.

    Raises:
        ValueError: if the explainer has more blocks already.

    >>> deepened(ShapleyExplainer(width=8, depth=1), 2).depth
    2
    """
    if depth < explainer.depth:
        raise ValueError(f"The explainer has {explainer.depth} blocks, so it cannot become one of {depth}: pass more.")
    grown = ShapleyExplainer(explainer.width, depth).to(explainer.head.weight)
    grown.load_state_dict({**grown.state_dict(), **explainer.state_dict()})
    for block in list(grown.blocks)[explainer.depth :]:
        last = block.mix[-1]  # type: ignore[index]
        assert isinstance(last, nn.Linear)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)
    return grown.requires_grad_(True)
