"""Kernel ridge regression derived again, with the whole covariance of all players of all rows written out."""

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch

from captum_meta.learners import KernelRidge
from captum_meta.nn import EvidenceExplainer, ShapleyExplainer
from captum_meta.types import Evidence, Explanations, ExplanationTask
from tests.learners.measured import evidence_of

NOISES = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0)


def explanations(n_rows: int, n_players: int, seed: int, curved: bool = True) -> Explanations:
    """Attributions that are a curve in the players' inputs, of another height for each player, plus a little noise."""
    generator = torch.Generator().manual_seed(seed)
    inputs = torch.randn(n_rows, n_players, generator=generator, dtype=torch.float64)
    heights = torch.linspace(0.5, 2.0, n_players, dtype=torch.float64)
    noise = torch.randn(n_rows, n_players, generator=generator, dtype=torch.float64)
    values = heights * torch.sin(2 * inputs) * curved + 0.1 * noise
    effects = torch.randn(n_rows, n_players, 5, generator=generator, dtype=torch.float64)
    inputs_and_baselines = torch.stack([inputs, torch.zeros_like(inputs)], dim=-1)
    return Explanations(replace(evidence_of(effects, values), inputs=inputs_and_baselines), values)


def places(evidence: Evidence, unit: float, deviation: np.ndarray) -> np.ndarray:
    """Where each player stands, number by number."""
    assert evidence.inputs is not None
    effects = evidence.effects.numpy()
    z = np.zeros((*effects.shape[:2], 8))
    for row in range(len(z)):
        for player in range(z.shape[1]):
            delta = float(evidence.inputs[row, player, 0]) / deviation[player]
            numbers = [0.0, *effects[row, player]]
            z[row, player] = [delta, np.arcsinh(float(evidence.total[row]) / unit)] + [
                np.arcsinh(3 * number / unit) for number in numbers
            ]
    return z


def covariance(learner: KernelRidge, left: np.ndarray, right: np.ndarray) -> np.ndarray:
    """rho k + (1 - rho) k where the player is the same, pair by pair; players ``(N, M)`` and ``(K, M)`` flattened."""
    frequencies = learner.frequencies.double().numpy()
    size = frequencies.shape[1]
    flat = [(n, i, row[i]) for n, row in enumerate(left) for i in range(left.shape[1])]
    other = [(n, i, row[i]) for n, row in enumerate(right) for i in range(right.shape[1])]
    answer = np.zeros((len(flat), len(other)))
    for a, (_, i, y) in enumerate(flat):
        for b, (_, j, z) in enumerate(other):
            wave = np.cos((y - z) @ frequencies).sum() / size
            answer[a, b] = (0.9 + 0.1 * (i == j)) * (wave + 0.3 * (1 + y @ z))
    return answer


def test_it_is_the_posterior_mean_at_the_noise_and_strength_that_left_out_rows_advise() -> None:
    support, query = explanations(7, 3, seed=0), explanations(4, 3, seed=1)
    learner = KernelRidge(EvidenceExplainer(), confidence=0.5, features=8)
    scale = learner.explainer.prior(support.evidence).scale
    unit = float(scale.square().mean().sqrt())
    assert support.evidence.inputs is not None
    variance = support.evidence.inputs[..., 0].numpy().var(0)
    deviation = np.sqrt(variance + 0.1 * variance.mean())
    rows, asked = places(support.evidence, unit, deviation), places(query.evidence, unit, deviation)
    right = support.attributions.numpy()
    kernel, cross = covariance(learner, rows, rows), covariance(learner, asked, rows)
    fellows = np.array(
        [min(((row - s) ** 2).sum(-1).mean() for s in [*rows[:r], *rows[r + 1 :]]) for r, row in enumerate(rows)]
    )
    nearest = np.array([min(((row - s) ** 2).sum(-1).mean() for s in rows) for row in asked])
    beyond, further = (np.maximum(d / (fellows.mean() + 1e-3) - 1, 0)[:, None] for d in (fellows, nearest))
    best_gain, reach, expected = 0.0, 0.0, np.zeros((4, 3))
    for noise, decay in product(NOISES, (0.3, 0.1)):
        left_out = np.zeros((7, 3))
        for row in range(7):
            others = [3 * r + i for r in range(7) if r != row for i in range(3)]
            mine = [3 * row + i for i in range(3)]
            inverse = np.linalg.inv(kernel[np.ix_(others, others)] + noise * np.eye(18))
            left_out[row] = kernel[np.ix_(mine, others)] @ inverse @ right.reshape(-1)[others]
        left_out *= np.exp(-decay * beyond)
        agreement = (left_out * right).sum(-1)
        sure = agreement.sum() - 0.5 * agreement.std(ddof=1) * 7**0.5
        share = min(max(sure / (left_out**2).sum(), 0.0), 1.0)
        gain = share * (2 * sure - share * (left_out**2).sum())
        if gain > best_gain:
            dual = np.linalg.solve(kernel + noise * np.eye(21), right.reshape(-1))
            reach, best_gain = share * np.linalg.norm(left_out, axis=-1).max(), gain
            expected = share * (cross @ dual).reshape(4, 3) * np.exp(-decay * further)
    expected *= np.minimum(1, reach / np.linalg.norm(expected, axis=-1))[:, None]
    state = learner.adapt(support)
    assert best_gain > 0
    assert np.allclose(learner.propose(state, query.evidence).attributions.numpy(), expected, atol=1e-6)


def test_curves_are_learned_and_noise_is_not() -> None:
    learner = KernelRidge(EvidenceExplainer())
    for curved, most in ((True, 0.7), (False, 1.1)):
        query = explanations(40, 3, seed=5, curved=curved)
        predicted = learner.predict(learner.adapt(explanations(24, 3, seed=4, curved=curved)), query.evidence)
        error = (predicted - query.attributions).square().sum() / query.attributions.square().sum()
        assert error < most


def test_one_row_cannot_judge_itself_so_nothing_is_learned() -> None:
    state = KernelRidge(EvidenceExplainer()).adapt(explanations(1, 4, 0))
    assert not state.shared.any() and not state.own.any()


def test_players_that_the_support_set_never_had_get_what_is_shared() -> None:
    learner = KernelRidge(EvidenceExplainer())
    state = learner.adapt(explanations(24, 3, seed=4))
    longer = explanations(5, 6, seed=6).evidence
    corrections = learner.propose(state, longer).attributions
    without = learner.propose(replace(state, own=torch.zeros_like(state.own)), longer).attributions
    assert corrections[:, 3:].abs().min() > 0
    assert not torch.allclose(corrections[:, :3], without[:, :3], rtol=1e-3)


def test_works_without_inputs() -> None:
    support = explanations(12, 3, seed=0)
    support = replace(support, evidence=replace(support.evidence, inputs=None))
    learner = KernelRidge(EvidenceExplainer())
    assert learner.predict(learner.adapt(support), support.evidence).isfinite().all()


def test_of_very_many_players_those_missed_most_are_learned_from(monkeypatch: pytest.MonkeyPatch) -> None:
    support = explanations(24, 5, seed=4)
    learner = KernelRidge(EvidenceExplainer())
    everyone = learner.adapt(support)
    monkeypatch.setattr("captum_meta.learners._kernel._MAX_PAIRS", 24 * 2)
    some = learner.adapt(support)
    assert everyone.own.any(-1).all()
    assert some.own.any(-1).tolist() == [False, False, False, True, True]


def test_meta_training_sees_the_explainer_alone() -> None:
    learner, tasks = KernelRidge(ShapleyExplainer(16, 1)), ExplanationTask(explanations(6, 4, 0), explanations(5, 4, 1))
    learner.double()
    predicted = learner.explainer(tasks.query.evidence).attributions
    squared = (predicted - tasks.query.attributions).square().sum()
    expected = torch.log(0.0005 + squared / tasks.query.attributions.square().sum())
    assert torch.allclose(learner.loss(tasks), expected)
