"""Surrogate stacking: its shares derived again, and what it must and must not lean on."""

from dataclasses import replace
from itertools import product

import pytest
import torch

from captum_meta.attr import MetaKernelShap
from captum_meta.evidence import Game, measure_shapley, measure_support
from captum_meta.functional import attribution_error
from captum_meta.learners import load_learner
from captum_meta.learners._correction import shares
from captum_meta.types import Coalitions, Explanations, ExplanationTask
from tests.learners.trained_net import KNOWN, PLAYERS, Trained, predicted


@pytest.fixture(scope="module")
def trained() -> Trained:
    return Trained()


@pytest.mark.parametrize("budget", [0, 2 * PLAYERS])
def test_coalitions_of_the_support_rows_teach_more_than_their_shapley_values(trained: Trained, budget: int) -> None:
    task = trained.task(budget)
    errors = [
        float(attribution_error(predicted(load_learner(name), task), task.query.attributions))  # type: ignore[arg-type]
        for name in ("deep-kernel", "surrogate")
    ]
    assert errors[1] < 0.7 * errors[0]


def test_without_coalitions_it_is_the_deep_kernel(trained: Trained) -> None:
    task = trained.task(0)
    bare = replace(task, support=replace(task.support, evidence=replace(task.support.evidence, coalitions=None)))
    kernel, surrogate = load_learner("deep-kernel"), load_learner("surrogate")
    assert torch.equal(predicted(surrogate, bare), predicted(kernel, bare))  # type: ignore[arg-type]
    assert not torch.equal(predicted(surrogate, task), predicted(kernel, task))  # type: ignore[arg-type]


def test_rows_of_an_output_that_no_support_row_has_are_the_deep_kernel_s(trained: Trained) -> None:
    kernel, surrogate, task = load_learner("deep-kernel"), load_learner("surrogate"), trained.task(0)
    evidence = task.query.evidence
    assert evidence.targets is not None
    strange = replace(task, query=replace(task.query, evidence=replace(evidence, targets=torch.ones_like(evidence.targets))))
    assert torch.allclose(predicted(surrogate, strange), predicted(kernel, strange), atol=1e-5)  # type: ignore[arg-type]


def test_rows_of_more_players_than_a_network_reads_are_the_deep_kernel_s(trained: Trained) -> None:
    kernel, surrogate, task = load_learner("deep-kernel"), load_learner("surrogate"), trained.task(0)
    wide = replace(task, query=task.query.padded(M=65))
    assert torch.equal(predicted(surrogate, wide), predicted(kernel, wide))  # type: ignore[arg-type]
    assert surrogate.reading.evaluations_of(64) == 16 * 64 and surrogate.reading.evaluations_of(65) == 0


def test_outputs_are_told_apart(trained: Trained) -> None:
    task = trained.task(0, torch.tensor([0, 1] * (KNOWN // 2)))
    blind = replace(
        task,
        support=replace(task.support, evidence=replace(task.support.evidence, targets=None)),
        query=replace(task.query, evidence=replace(task.query.evidence, targets=None)),
    )
    surrogate = load_learner("surrogate")
    with_targets, without = (
        float(attribution_error(predicted(surrogate, one), task.query.attributions))  # type: ignore[arg-type]
        for one in (task, blind)
    )
    assert with_targets < without


def test_the_order_of_players_does_not_matter(trained: Trained) -> None:
    surrogate = load_learner("surrogate").double()
    task = trained.task(0).to(dtype=torch.float64)
    order = torch.tensor([3, 0, 5, 1, 4, 2])

    def shuffled_coalitions(coalitions: Coalitions) -> Coalitions:
        assert coalitions.gradients is not None
        return replace(coalitions, members=coalitions.members[..., order], gradients=coalitions.gradients[:, :, order])

    def shuffled(rows: Explanations) -> Explanations:
        evidence = rows.evidence
        coalitions, inputs, elements = evidence.coalitions, evidence.inputs, evidence.elements
        assert inputs is not None and elements is not None
        evidence = replace(
            evidence,
            effects=evidence.effects[:, order],
            measured=evidence.measured[:, order],
            inputs=inputs[:, order],
            elements=elements[:, order],
            coalitions=coalitions and shuffled_coalitions(coalitions),
        )
        return replace(rows, evidence=evidence, attributions=rows.attributions[:, order])

    other = ExplanationTask(shuffled(task.support), shuffled(task.query))
    expected = predicted(surrogate, task)[:, order]  # type: ignore[arg-type]
    assert torch.allclose(predicted(surrogate, other), expected, atol=1e-5)  # type: ignore[arg-type]


def test_rows_of_much_smaller_effects_are_not_corrected_out_of_proportion(trained: Trained) -> None:
    surrogate, task = load_learner("surrogate"), trained.task(0)
    state = surrogate.adapt(task.support)
    evidence = task.query.evidence
    small = evidence.times(torch.full_like(evidence.total, 1e-4))
    start = surrogate.explainer(small).attributions
    moved = (surrogate.predict(state, small) - start).norm(dim=-1) / surrogate.explainer.prior(small).scale
    assert (moved <= 2 * state.reach).all()


@pytest.mark.parametrize("confidence", [0.0, 1.0])
def test_shares_leave_least_of_what_was_left_out(confidence: float) -> None:
    generator = torch.Generator().manual_seed(0)
    truth = torch.randn(5, 3, generator=generator, dtype=torch.float64)
    answers = truth.unsqueeze(-1) + torch.tensor([0.7, 1.0, 0.7]) * torch.randn(5, 3, 3, generator=generator).double()
    start = truth + 0.3
    kernel = (answers[..., 0] - truth).square().sum(-1)
    best, most = (0.0, 0.0, 0.0), -float("inf")
    for a, b in product(range(9), repeat=2):
        if a + b <= 8:
            three = (a / 8, b / 8, (8 - a - b) / 8)
            answer = three[0] * answers[..., 0] + three[1] * answers[..., 1] + three[2] * answers[..., 2]
            gains = kernel - (answer - truth).square().sum(-1)
            uneven = sum((share - 1 / 3) ** 2 for share in three)
            sure = float(gains.sum() - confidence * gains.std() * 5**0.5 - 0.1 * 15 * 0.09 * uneven)
            if sure > most:
                best, most = three, sure
    assert shares(answers, truth, start, confidence).tolist() == pytest.approx(best)


class TestMeasuring:
    @pytest.mark.parametrize("budget", [0, 3, 2 * PLAYERS])
    def test_support_rows_look_as_queries_do(self, trained: Trained, budget: int) -> None:
        game = Game(trained.net, trained.x[:4], target=1)
        support, query = measure_support(game, budget, 16 * PLAYERS), measure_shapley(game, budget)
        assert query.coalitions is None and support.coalitions is not None
        assert support.coalitions.measured.sum(-1).tolist() == [16 * PLAYERS // 3] * 4
        assert torch.equal(support.measured, query.measured)
        assert torch.allclose(support.effects, query.effects, atol=1e-6)

    def test_rows_without_a_gradient_have_their_border(self, trained: Trained) -> None:
        game = Game(lambda x: trained.net(x.detach()), trained.x[:4], target=1)
        with pytest.warns(UserWarning, match="no gradient"):
            support = measure_support(game, 0, 16 * PLAYERS)
        assert not support.measured[..., :3].any() and support.measured[..., 3:].all()

    def test_the_target_is_told(self, trained: Trained) -> None:
        x = trained.x[:3]
        assert measure_shapley(Game(trained.net, x, target=1)).targets.tolist() == [1, 1, 1]  # type: ignore[union-attr]
        each = measure_shapley(Game(trained.net, x, target=[0, 1, 1])).targets
        assert each is not None and each.tolist() == [0, 1, 1]
        both = measure_shapley(Game(trained.net, x)).targets
        assert both is not None and both.tolist() == [0, 1] * 3
        assert measure_shapley(Game(lambda x: trained.net(x)[:, 0], x)).targets is None


def test_support_rows_with_other_numbers_of_players_join(trained: Trained) -> None:
    attr = MetaKernelShap(trained.net, learner="surrogate")
    pairs = torch.tensor([[0, 0, 1, 1, 2, 2]])
    attr.adapt(trained.x[:4], target=0, feature_mask=pairs).adapt(trained.x[4:8], target=0)
    assert attr.attribute(trained.x[8:10], target=0).isfinite().all()
