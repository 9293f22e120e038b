import pytest
import torch

from captum_meta.nn import ShapleyExplainer, deepened
from tests.nn.test_explainers import explainer, shapley_evidence


def test_a_deepened_explainer_says_the_same_and_learns_with_all_its_blocks() -> None:
    shallow = explainer(ShapleyExplainer)
    assert isinstance(shallow, ShapleyExplainer)
    deep, evidence = deepened(shallow, shallow.depth + 2), shapley_evidence(inside=10).to(dtype=torch.float64)
    assert torch.equal(deep(evidence).attributions, shallow(evidence).attributions)
    deep(evidence).attributions.square().sum().backward()
    for block in list(deep.blocks)[shallow.depth :]:
        assert block.mix[-1].weight.grad.abs().sum() > 0  # type: ignore[union-attr, index]


def test_an_explainer_does_not_become_shallower() -> None:
    with pytest.raises(ValueError, match="has 3 blocks, so it cannot become one of 2"):
        deepened(ShapleyExplainer(depth=3), 2)
