"""MAML over networks that learn the explained model: what it adds to its features' loop, and what it falls back to."""

from dataclasses import replace

import pytest
import torch

from captum_meta.functional import attribution_error
from captum_meta.learners import FeatureMAML, SurrogateMAML, load_learner
from tests.learners.test_surrogate import PLAYERS, Trained, predicted


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@pytest.fixture(scope="module")
def learner() -> SurrogateMAML:
    found = load_learner("maml")
    assert isinstance(found, SurrogateMAML)
    return found


@pytest.fixture(scope="module")
def features(learner: SurrogateMAML) -> FeatureMAML:
    """Its loop over features alone."""
    form = {name: value for name, value in learner.arguments().items() if name != "descent_steps"}
    alone = FeatureMAML(learner.explainer, **form)  # type: ignore[arg-type]
    alone.load_state_dict({name: value for name, value in learner.state_dict().items() if not name.startswith("descent.")})
    return alone.eval().requires_grad_(False)


@pytest.mark.parametrize("budget", [0, 2 * PLAYERS])
def test_networks_of_few_steps_teach_more_than_the_features(
    trained: Trained, learner: SurrogateMAML, features: FeatureMAML, budget: int
) -> None:
    task = trained.task(budget)
    errors = [float(attribution_error(predicted(each, task), task.query.attributions)) for each in (features, learner)]
    assert errors[1] < 0.7 * errors[0]


def test_without_coalitions_it_is_the_loop_over_features(
    trained: Trained, learner: SurrogateMAML, features: FeatureMAML
) -> None:
    task = trained.task(0)
    bare = replace(task, support=replace(task.support, evidence=replace(task.support.evidence, coalitions=None)))
    assert torch.equal(predicted(learner, bare), predicted(features, bare))
    assert not torch.equal(predicted(learner, task), predicted(features, task))


def test_its_networks_are_those_of_the_learned_descent(trained: Trained, learner: SurrogateMAML) -> None:
    support = trained.task(0).support
    other = SurrogateMAML(learner.explainer, **learner.arguments())  # type: ignore[arg-type]
    other.load_state_dict(learner.state_dict())
    before = learner.distil(support)["network inner"]
    other.descent.log_rates.data -= 1.0
    assert not torch.allclose(other.distil(support)["network inner"], before)
