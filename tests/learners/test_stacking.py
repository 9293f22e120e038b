"""By which networks surrogate stacking is judged: those that have not seen the row, and with confidence."""

from dataclasses import replace
from itertools import product

import pytest
import torch
from torch import Tensor

from captum_meta.learners import DeepKernelTransfer, Stacking
from captum_meta.learners._coordinates import coordinates
from captum_meta.learners._correction import shares, within
from captum_meta.nn import ShapleyExplainer
from captum_meta.types import Explanations
from tests.learners.explained_nets import N_PLAYERS, ROWS, explained_task


@pytest.fixture
def learner() -> Stacking:
    torch.manual_seed(0)
    return Stacking(DeepKernelTransfer(ShapleyExplainer(16, 1))).double().eval().requires_grad_(False)


def left_out_of(rows: Explanations) -> Tensor:
    """Which rows each of four networks does not see: they are dealt out in the order of their attributions' sizes."""
    place = rows.attributions.square().sum(-1).argsort().argsort()
    return torch.stack([place % 4 == network for network in range(4)])


def support(seed: int) -> Explanations:
    return explained_task(seed, 0).support.to(dtype=torch.float64)


def test_a_network_learns_nothing_of_the_rows_that_it_is_judged_by(learner: Stacking) -> None:
    rows = support(1)
    left_out, before = left_out_of(rows), learner.distil(rows)
    coalitions = rows.evidence.coalitions
    assert coalitions is not None and coalitions.gradients is not None
    for row in range(ROWS):
        sign = torch.ones(ROWS, dtype=torch.float64).index_fill(0, torch.tensor(row), -1.0)
        other = replace(
            coalitions, worths=coalitions.worths * sign[:, None], gradients=coalitions.gradients * sign[:, None, None, None]
        )
        after = learner.distil(replace(rows, evidence=replace(rows.evidence, coalitions=other)))
        same = [torch.allclose(*pair) for pair in zip(before.networks.inner, after.networks.inner, strict=True)]
        assert same == left_out[:, row].tolist()


def test_each_row_is_judged_by_the_network_and_the_kernel_without_it(learner: Stacking) -> None:
    rows = support(2)
    state, left_out = learner.adapt(rows), left_out_of(rows)
    plain = replace(rows.evidence, coalitions=None)
    answers = torch.zeros(ROWS, N_PLAYERS, 3, dtype=torch.float64)
    for row in range(ROWS):
        fold = int(left_out[:, row].nonzero())
        assert state.surrogate is not None
        game = learner.surrogate_game(replace(state.surrogate, networks=state.surrogate.networks[fold : fold + 1]), plain)
        values = game.shapley_values()[row]
        rest = learner.explainer(game.taken_from(plain)).attributions[row]
        others = (~left_out[fold]).nonzero().flatten()
        kernel = learner.base.adapt(Explanations(plain[others], rows.attributions[others]))
        without = learner.base.predict(kernel, plain)[row]
        answers[row] = torch.stack([without, values, values + rest], dim=-1)
    start = learner.explainer(plain).attributions
    assert torch.equal(shares(answers, rows.attributions, start, learner.confidence), state.shares)
    correction = (answers * state.shares).sum(-1) - start
    reach = 2 * (correction.norm(dim=-1) / learner.explainer.prior(plain).scale).max()
    assert torch.allclose(reach, state.reach, rtol=1e-6)


def test_networks_fade_with_the_distance_twice_as_fast_as_the_kernel(learner: Stacking) -> None:
    task = explained_task(3, 0).to(dtype=torch.float64)
    state, evidence = learner.adapt(task.support), task.query.evidence
    zero_shot = learner.explainer.prior(evidence)
    kernel = learner.base.propose(state.base, evidence).attributions
    near = state.base.nearness(coordinates(zero_shot, evidence, state.base.statistics), evidence.players)
    assert (near < 0.9).any()
    correction = kernel - zero_shot.attributions
    answers = learner.surrogate_answers(learner.surrogate_game(state.surrogate, evidence), evidence)
    for share, answer in zip(state.shares[1:], answers, strict=True):
        correction = correction + near**2 * share * (answer - kernel)
    unit = zero_shot.scale.unsqueeze(-1)
    expected = zero_shot.attributions + unit * within(correction / unit, state.reach)
    assert torch.allclose(learner.propose(state, evidence).attributions, expected, rtol=1e-6, atol=1e-9)


def test_networks_do_not_read_players_without_effect(learner: Stacking) -> None:
    task = explained_task(1, 2 * N_PLAYERS, dead=2).to(dtype=torch.float64)
    state, evidence = learner.adapt(task.support), task.query.evidence
    assert evidence.elements is not None
    moved = evidence.elements.clone()
    moved[:, 2, :, 0] += 1.0
    first, second = (
        learner.distilled_values(state.surrogate, each) for each in (evidence, replace(evidence, elements=moved))
    )
    assert torch.allclose(first, second, rtol=1e-9, atol=1e-12)


def plainly(answers: Tensor, truth: Tensor, start: Tensor, confidence: float) -> tuple[float, ...]:
    """The shares, by a loop over all of them."""
    best, most = (0.0, 0.0, 0.0), -float("inf")
    kernel = (answers[..., 0] - truth).square().sum(-1)
    for a, b in product(range(8, -1, -1), repeat=2):
        if a + b <= 8:
            three = (a / 8, b / 8, (8 - a - b) / 8)
            answer = sum(share * part for share, part in zip(three, answers.unbind(-1), strict=True))
            gains = kernel - (answer - truth).square().sum(-1)
            uneven = sum((share - 1 / 3) ** 2 for share in three)
            pull = 0.1 * float((start - truth).square().sum()) * uneven
            sure = float(gains.sum() - confidence * gains.std() * len(truth) ** 0.5) - pull
            if sure > most:
                best, most = three, sure
    return best


def test_confidence_takes_standard_errors_off_the_gains() -> None:
    generator = torch.Generator().manual_seed(0)
    found: dict[float, list[tuple[float, ...]]] = {0.0: [], 1.0: [], -1.0: []}
    for _ in range(20):
        truth = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        noise = torch.randn(5, 3, 3, generator=generator).double()
        answers = truth.unsqueeze(-1) + torch.tensor([1.0, 1.5, 1.0]) * noise * noise.abs()
        for confidence, some in found.items():
            some.append(plainly(answers, truth, truth + 0.1, confidence))
            for start in (truth + 0.1, truth + 1.5):  # even shares count by the zero-shot error
                if confidence >= 0:
                    assert shares(answers, truth, start, confidence).tolist() == pytest.approx(
                        plainly(answers, truth, start, confidence)
                    )
    assert found[0.0] != found[1.0] != found[-1.0]
    towards_the_kernel = [sum(share[0] for share in found[confidence]) for confidence in (1.0, 0.0, -1.0)]
    assert towards_the_kernel == sorted(towards_the_kernel, reverse=True)
