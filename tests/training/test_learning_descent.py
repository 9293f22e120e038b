"""Learning a descent: what is measured of synthetic models, and that following the estimates lowers the error."""

import pytest
import torch

from captum_meta.learners import FeatureMAML, Stacking
from captum_meta.nn import LearnedDescent, ShapleyExplainer
from captum_meta.training.descent import log_error, tasks, train
from captum_meta.types import ExplanationTask


@pytest.fixture(scope="module")
def taught() -> list[ExplanationTask]:
    return tasks(seed=3, batches=4)


def network() -> Stacking:
    torch.manual_seed(0)
    return Stacking(FeatureMAML(ShapleyExplainer(16, 1)), LearnedDescent(10)).requires_grad_(False)


def test_coalitions_end_with_all_players_and_none_and_worths_follow_from_gradients(taught: list[ExplanationTask]) -> None:
    for task in taught:
        evidence = task.support.evidence
        coalitions = evidence.coalitions
        assert coalitions is not None and coalitions.gradients is not None and evidence.elements is not None
        assert coalitions.members[..., -2, :].all() and not coalitions.members[..., -1, :].any()
        assert torch.allclose(coalitions.worths[..., -2], evidence.total, rtol=1e-3, atol=1e-4)
        delta = evidence.elements[..., 0] - evidence.elements[..., 1]
        along = (coalitions.gradients[..., -2, :, :] * delta).sum(-1)
        assert torch.allclose(along, evidence.effects[..., 0], rtol=1e-3, atol=1e-4)


def test_training_lowers_the_error_and_is_the_same_each_time(taught: list[ExplanationTask]) -> None:
    first, second = network(), network()
    before = torch.cat([log_error(first, task) for task in taught]).mean()
    for learner in (first, second):
        train(learner, taught, steps=6)
    after = torch.cat([log_error(first, task) for task in taught]).mean()
    assert after < before
    for one, other in zip(first.surrogate.parameters(), second.surrogate.parameters(), strict=True):
        assert torch.equal(one, other)
