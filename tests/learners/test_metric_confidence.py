"""How far metric learners trust what they retrieve: a factor shrunk by the number of rows, and a bound by the effects."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from captum_meta.learners import MatchingNetwork, PrototypicalNetwork
from captum_meta.learners._metric import MetricLearner
from captum_meta.nn import ShapleyExplainer
from captum_meta.nn.encoders import effect_sizes
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.types import Explanations

LEARNERS = (MatchingNetwork, PrototypicalNetwork)


@pytest.fixture(scope="module")
def explained() -> Explanations:
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=9, seed=5)[6][0].to(dtype=torch.float64)
    return replace(rows, evidence=replace(rows.evidence, coalitions=None))


def network(kind: type[MetricLearner]) -> MetricLearner:
    """That retrieves whatever there is, however little it resembles the query."""
    torch.manual_seed(0)
    learner = kind(ShapleyExplainer(16, 1), head="none").double().eval()
    learner.threshold.data.fill_(-50.0)
    return learner.requires_grad_(False)


def moved(learner: MetricLearner, support: Explanations) -> Tensor:
    """What the support adds to the explanation of its first row, before it is completed."""
    row = support.evidence[:1]
    return (learner.propose(learner.adapt(support), row).attributions - learner.explainer.prior(row).attributions)[0]


def of_one_row(explained: Explanations, residual: Tensor, learner: MetricLearner, count: int) -> Explanations:
    """So many times the same row, explained with the same residual, all of one class."""
    evidence = explained.evidence[torch.zeros(count, dtype=torch.long)]
    attributions = learner.explainer(evidence).attributions + residual
    return Explanations(evidence, attributions, labels=torch.zeros(count, dtype=torch.long))


@pytest.mark.parametrize("kind", LEARNERS)
@pytest.mark.parametrize("count", [2, 4, 16])
def test_what_all_rows_agree_on_is_believed_the_more_rows_there_are(
    explained: Explanations, kind: type[MetricLearner], count: int
) -> None:
    """Each left-out row is what the others say, so the least-squares factor is 1; it is divided by 1 + 2 / K."""
    learner = network(kind)
    size = effect_sizes(explained.evidence[:1])[0]
    residual = 1e-3 * size * torch.where(torch.arange(len(size)) % 2 == 0, 1.0, -1.0)
    support = of_one_row(explained, residual, learner, count)
    assert torch.allclose(moved(learner, support), residual / (1 + 2 / count), rtol=1e-3, atol=0)


@pytest.mark.parametrize("kind", LEARNERS)
def test_a_correction_is_a_few_times_the_effects_at_most(explained: Explanations, kind: type[MetricLearner]) -> None:
    learner = network(kind)
    size = effect_sizes(explained.evidence[:1])[0]
    support = of_one_row(explained, 1e5 * size, learner, 8)
    assert (moved(learner, support) <= 4 * size).all() and (moved(learner, support) >= 2 * size).any()
