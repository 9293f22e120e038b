import pytest
import torch

from captum_meta.nn import ShapleyExplainer, deepened
from captum_meta.tasks import SyntheticTaskFamily


def test_a_deepened_explainer_says_the_same_and_learns_with_all_its_blocks() -> None:
    torch.manual_seed(0)
    shallow = ShapleyExplainer(width=16, depth=2).double()
    for parameter in shallow.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=3, seed=3)[1].without_coalitions()
    evidence = rows.evidence.to(dtype=torch.float64)
    deep = deepened(shallow, 4)
    assert torch.equal(deep(evidence).attributions, shallow(evidence).attributions)
    deep(evidence).attributions.square().sum().backward()
    for block in list(deep.blocks)[2:]:
        assert block.mix[-1].weight.grad.abs().sum() > 0  # type: ignore[union-attr, index]


def test_an_explainer_does_not_become_shallower() -> None:
    with pytest.raises(ValueError, match="has 3 blocks, so it cannot become one of 2"):
        deepened(ShapleyExplainer(depth=3), 2)
