"""The contract of every learner, and what holds for those that model the explained model."""

from dataclasses import replace

import pytest

from captum_meta.learners import list_learners, load_learner
from tests.learners import contract
from tests.learners.contract import LEARNERS, Batches, LearnerContract, build, tasks_for, without_elements
from tests.learners.explained_nets import N_PLAYERS, explained_task

batches = contract.batches


@pytest.mark.parametrize("name", LEARNERS)
class TestEveryLearner(LearnerContract):
    pass


SHAPLEY = [name for name, make in LEARNERS.items() if make().kind == "shapley"]


@pytest.mark.parametrize("name", SHAPLEY)
@pytest.mark.parametrize("budget", [2 * N_PLAYERS, 30])
def test_a_player_that_the_model_does_not_read_gets_nothing(name: str, budget: int) -> None:
    learner, task = build(name), explained_task(0, budget, dead=2)
    if not learner.reading.evaluations_of(6):
        task = without_elements(task)
    predicted = learner.predict(learner.adapt(task.support), task.query.evidence)
    assert (predicted[:, 2] == 0).all() and (predicted[:, [0, 1, 3, 4, 5]] != 0).all()


@pytest.mark.parametrize("name", ["surrogate", "surrogate-maml"])
class TestNetworksOfTheModel:
    """What the batches are made for: the learners that model the explained model do so in all of the above."""

    def test_they_take_part(self, name: str, batches: Batches) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        state = learner.adapt(tasks.support)
        assert (state.shares[:, 1:].sum(-1) > 0.1).all()
        blind = learner.adapt(without_elements(tasks).support)
        here, without = (learner.predict(each, tasks.query.evidence) for each in (state, blind))
        assert ((here - without).norm(dim=-1) > 1e-3 * here.norm(dim=-1)).all()

    def test_they_learn_gradients(self, name: str, batches: Batches) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches)
        coalitions = tasks.support.evidence.coalitions
        assert coalitions is not None and coalitions.gradients is not None
        values_alone = replace(tasks.support.evidence, coalitions=replace(coalitions, gradients=None))
        first, second = (
            learner.predict(learner.adapt(support), tasks.query.evidence)
            for support in (tasks.support, replace(tasks.support, evidence=values_alone))
        )
        assert ((first - second).norm(dim=-1) > 1e-4 * first.norm(dim=-1)).all()

    def test_of_rows_inside_the_border_too(self, name: str, batches: Batches) -> None:
        learner = build(name)
        tasks = tasks_for(learner, batches, " inside")
        state, blind = learner.adapt(tasks.support), learner.adapt(without_elements(tasks).support)
        here, without = (learner.predict(each, tasks.query.evidence) for each in (state, blind))
        assert ((here - without).norm(dim=-1) > 1e-5 * here.norm(dim=-1)).all()


def test_shipped_learners_load_and_fit_the_kind() -> None:
    for kind in ("shapley", "path"):
        assert {"zero-shot", "ridge"} <= set(list_learners(kind))
        assert load_learner(None, kind).kind == kind
