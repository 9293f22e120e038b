"""The ridge learner derived again, row by row, with everything written out."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from captum_meta.learners import KernelRidge, Ridge
from captum_meta.nn import EvidenceExplainer
from captum_meta.types import Evidence, Explanations
from tests.learners.measured import evidence_of

STRENGTHS = (0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)


def explanations(n_rows: int, n_players: int, seed: int, signal: float) -> Explanations:
    """Attributions that are a fixed combination of the effects, the same for all players, plus noise."""
    generator = torch.Generator().manual_seed(seed)
    effects = torch.randn(n_rows, n_players, 5, generator=generator, dtype=torch.float64)
    noise = torch.randn(n_rows, n_players, generator=generator, dtype=torch.float64)
    values = signal * (effects @ torch.tensor([0.5, 0.0, 0.2, 1.0, -0.3]).double()) + noise
    return Explanations(evidence_of(effects, values), values)


def plain_shared(features: np.ndarray, target: np.ndarray, strength: float, confidence: float) -> tuple[np.ndarray, float]:
    """Ridge on all rows, shrunk by what rows left out one at a time say, and by how much these rows gain."""
    flat = features.reshape(-1, features.shape[-1])
    size = np.mean(np.diag(flat.T @ flat))
    penalty = strength * size * np.eye(features.shape[-1])

    def fit(rows: list[int]) -> np.ndarray:
        x, y = features[rows].reshape(-1, features.shape[-1]), target[rows].reshape(-1)
        return np.linalg.solve(x.T @ x + penalty, x.T @ y)

    everyone = list(range(len(features)))
    agreement, size = [], 0.0
    for row in everyone:
        correction = features[row] @ fit([other for other in everyone if other != row])
        agreement.append((correction * target[row]).sum())
        size += (correction**2).sum()
    sure = sum(agreement) - confidence * np.std(agreement, ddof=1) * len(everyone) ** 0.5
    share = min(max(sure / size, 0.0), 1.0)
    return share * fit(everyone), share * (2 * sure - share * size)


def test_shared_coefficients_are_those_that_left_out_rows_gain_most_by() -> None:
    support = explanations(12, 4, seed=0, signal=2.0)
    explainer = EvidenceExplainer()
    prior = explainer.prior(support.evidence)
    features = torch.cat([support.evidence.effects, prior.features], dim=-1).numpy()
    fits = [plain_shared(features, support.attributions.numpy(), strength, 0.5) for strength in STRENGTHS]
    expected = max(fits, key=lambda fit: fit[1])[0]
    state = Ridge(explainer, confidence=0.5).adapt(support)
    assert np.abs(expected).max() > 0.1
    assert np.allclose(state.shared.numpy(), expected, atol=1e-8)


def test_noise_does_little_harm() -> None:
    """Where there is nothing to learn, what is learned by chance costs little on other rows."""
    harm = []
    for seed in range(20):
        learner = Ridge(EvidenceExplainer())
        state = learner.adapt(explanations(8, 4, seed, signal=0.0))
        query = explanations(50, 4, seed + 100, signal=0.0)
        error = (learner.predict(state, query.evidence) - query.attributions).square().sum()
        harm.append(float(error / query.attributions.square().sum()))
    assert np.mean(harm) < 1.1


def test_one_row_cannot_judge_itself_so_nothing_is_learned() -> None:
    state = Ridge(EvidenceExplainer()).adapt(explanations(1, 4, 0, signal=2.0))
    assert not state.shared.any() and not state.own.any()


def test_no_row_is_corrected_by_more_than_the_support_rows() -> None:
    support, learner = explanations(12, 4, seed=0, signal=2.0), Ridge(EvidenceExplainer())
    state = learner.adapt(support)
    query = explanations(5, 4, seed=1, signal=2.0).evidence
    far = replace(query, effects=1000 * query.effects)

    def sizes(evidence: Evidence) -> torch.Tensor:
        correction = learner.propose(state, evidence).attributions - learner.explainer.prior(evidence).attributions
        return correction.norm(dim=-1)

    largest = sizes(support.evidence).max()
    assert torch.allclose(sizes(far), largest.expand(5)) and largest > 0


def test_players_of_their_own_are_learned_apart() -> None:
    """The sign of the effect differs by player, which only the coefficients of each player can say."""
    support = explanations(30, 4, seed=0, signal=0.0)
    signs = torch.tensor([1.0, -1.0, 1.0, -1.0]).double()
    values = 3 * support.evidence.effects[..., 3] * signs
    support = Explanations(support.evidence, values)
    learner = Ridge(EvidenceExplainer())
    predicted = learner.predict(learner.adapt(support), support.evidence)
    assert (predicted - values).square().sum() < 0.3 * values.square().sum()


@pytest.mark.parametrize("kind", [Ridge, KernelRidge])
@pytest.mark.parametrize(("size", "most"), [(10.0, 0.8), (1000.0, 1.0)])
def test_noisy_labels_count_less(kind: type[Ridge] | type[KernelRidge], size: float, most: float) -> None:
    support = explanations(12, 4, seed=0, signal=2.0)
    variance = torch.zeros(12, 4, dtype=torch.float64)
    variance[6:] = size**2
    spoilt = support.attributions.clone()
    spoilt[6:] += size * torch.randn(6, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    learner = kind(EvidenceExplainer()).double()
    query = explanations(20, 4, seed=3, signal=2.0)

    def error(noise: torch.Tensor | None) -> torch.Tensor:
        state = learner.adapt(Explanations(support.evidence, spoilt, noise))
        return (learner.predict(state, query.evidence) - query.attributions).square().sum()

    assert error(variance) <= most * error(None)


def test_rows_with_hardly_any_effect_have_a_finite_gradient() -> None:
    """Such as saturated rows of a probability: the bound on corrections divides by their size."""
    support, query = (explanations(12, 4, seed, signal=2.0).to(dtype=torch.float32) for seed in (0, 1))
    learner = Ridge(EvidenceExplainer())
    state = learner.adapt(support).map(lambda value: value.requires_grad_(True))
    assert state.reach > 0
    effects = query.evidence.effects.clone()
    effects[0] *= 1e-19
    learner.predict(state, replace(query.evidence, effects=effects)).square().sum().backward()
    assert all(value.grad is not None and value.grad.isfinite().all() for value in vars(state).values())
