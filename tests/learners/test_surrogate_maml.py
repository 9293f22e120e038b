"""MAML over networks that learn the explained model: what it adds to its features' loop, and what it falls back to."""

from copy import deepcopy
from dataclasses import replace

import pytest
import torch

from captum_meta.functional import attribution_error
from captum_meta.learners import FeatureMAML, Stacking, load_learner
from captum_meta.nn import LearnedDescent
from tests.learners.trained_net import PLAYERS, Trained, predicted


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@pytest.fixture(scope="module")
def learner() -> Stacking:
    found = load_learner("surrogate-maml")
    assert isinstance(found, Stacking)
    return found


@pytest.fixture(scope="module")
def features() -> FeatureMAML:
    """Its loop over features alone."""
    found = load_learner("feature-maml")
    assert isinstance(found, FeatureMAML)
    return found


@pytest.mark.parametrize("budget", [0, 2 * PLAYERS])
def test_networks_of_few_steps_teach_more_than_the_features(
    trained: Trained, learner: Stacking, features: FeatureMAML, budget: int
) -> None:
    task = trained.task(budget)
    errors = [float(attribution_error(predicted(each, task), task.query.attributions)) for each in (features, learner)]
    assert errors[1] < 0.7 * errors[0]


def test_without_coalitions_it_is_the_loop_over_features(trained: Trained, learner: Stacking, features: FeatureMAML) -> None:
    task = trained.task(0)
    bare = replace(task, support=replace(task.support, evidence=replace(task.support.evidence, coalitions=None)))
    assert torch.equal(predicted(learner, bare), predicted(features, bare))
    assert not torch.equal(predicted(learner, task), predicted(features, task))


def test_its_networks_are_those_of_the_learned_descent(trained: Trained, learner: Stacking) -> None:
    support = trained.task(0).support
    other, before = deepcopy(learner), learner.distil(support).networks.inner
    assert isinstance(other.surrogate, LearnedDescent)
    other.surrogate.log_rates.data -= 1.0
    assert not torch.allclose(other.distil(support).networks.inner, before)
