"""Explanation by example: which support rows an explanation leans on."""

import pytest
import torch
from torch import nn

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.learners import MatchingNetwork, PrototypicalNetwork, ZeroShot
from captum_meta.nn import (
    EmbeddingEncoder,
    EuclideanSimilarity,
    PathExplainer,
    RawInputs,
    ShapleyExplainer,
)


def literal() -> MatchingNetwork:
    return MatchingNetwork(ShapleyExplainer(16, 1), RawInputs(), EuclideanSimilarity(1e-3), values="attributions").eval()


def model() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.Tanh(), nn.Linear(8, 2)).eval()


def test_a_support_row_leans_on_itself_and_repeats_its_attributions() -> None:
    attr, rows, values = MetaKernelShap(model(), learner=literal()), torch.randn(6, 5), torch.randn(6, 5)
    attr.adapt(rows, target=0, attributions=values)
    assert torch.allclose(attr.support_weights(rows, target=0), torch.eye(6), atol=1e-4)
    explained = attr.attribute(rows, target=0)
    total = model()(rows)[:, 0] - model()(torch.zeros(1, 5))[:, 0]
    assert torch.allclose(explained.sum(1), total, atol=1e-4)


@pytest.mark.parametrize("learner", [MatchingNetwork, PrototypicalNetwork])
@pytest.mark.parametrize("front_end", [MetaKernelShap, MetaIntegratedGradients])
def test_weights_of_every_row_sum_to_one(learner: type, front_end: type) -> None:
    explainer = ShapleyExplainer(16, 1) if front_end is MetaKernelShap else PathExplainer(16, 1)
    attr = front_end(model(), learner=learner(explainer).eval())
    attr.adapt(torch.randn(8, 5), target=1, attributions=torch.ones(8, 5))
    weights = attr.support_weights(torch.randn(3, 5), target=1)
    assert weights.shape == (3, 8)
    assert torch.allclose(weights.sum(1), torch.ones(3), atol=1e-4)


def test_the_models_own_embedding_is_compared() -> None:
    """Rows that the model cannot tell apart are alike, however they differ in inputs."""

    class Blind(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.view = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.view(x[:, :2]).prod(1) + x[:, 2:].sum(1)

    encoder = EmbeddingEncoder("view", 8)
    learner = MatchingNetwork(ShapleyExplainer(16, 1), encoder, EuclideanSimilarity(1e-6), values="attributions").eval()
    rows = torch.randn(6, 4)
    attr = MetaKernelShap(Blind(), learner=learner).adapt(rows, attributions=torch.randn(6, 4))
    other = torch.cat([rows[:, :2], torch.randn(6, 2)], dim=1)
    assert torch.allclose(attr.support_weights(other), torch.eye(6), atol=1e-3)
    assert not Blind().view._forward_hooks
    attr.attribute(other)
    for broken in (lambda x: x.sum(1), nn.Sequential(nn.Linear(4, 1), nn.Flatten(0))):
        with pytest.raises(ValueError, match="no module 'view'"):
            MetaKernelShap(broken, learner=learner).adapt(rows)


def test_what_cannot_be_answered_says_why() -> None:
    attr = MetaKernelShap(model(), learner=literal())
    with pytest.raises(RuntimeError, match="call adapt"):
        attr.support_weights(torch.randn(2, 5), target=0)
    assert attr.attribute(torch.randn(2, 5), target=0).shape == (2, 5)
    attr = MetaKernelShap(model(), learner=ZeroShot(ShapleyExplainer(16, 1)).eval()).adapt(torch.randn(4, 5), target=0)
    with pytest.raises(ValueError, match="ZeroShot does not explain rows by comparing"):
        attr.support_weights(torch.randn(2, 5), target=0)
    attr = MetaKernelShap(model(), learner=literal()).adapt(torch.randn(4, 5), target=0)
    wide = nn.Linear(7, 2)
    attr.forward_func = wide
    with pytest.raises(ValueError, match="have 5 players and the query has 7"):
        attr.attribute(torch.randn(2, 7), target=0)


def test_sentences_of_other_lengths() -> None:
    def count(x: torch.Tensor) -> torch.Tensor:
        return x.tanh().sum(1) + x[:, 0] * x[:, -1]

    attr = MetaKernelShap(count, learner=MatchingNetwork(ShapleyExplainer(16, 1)).eval())
    attr.adapt(torch.randn(8, 4)).adapt(torch.randn(8, 6))
    for width in (3, 5, 7):
        x = torch.randn(2, width)
        assert attr.attribute(x).shape == x.shape
        assert torch.allclose(attr.support_weights(x).sum(1), torch.ones(2), atol=1e-4)
