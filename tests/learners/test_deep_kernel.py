"""The deep kernel derived again, pair by pair, and its regression with the whole covariance written out."""

from itertools import product

import numpy as np
import torch

from captum_meta.learners import DeepKernelTransfer
from captum_meta.learners._coordinates import SupportCoordinates, coordinates
from captum_meta.nn import ShapleyExplainer
from captum_meta.nn.encoders import Statistics
from captum_meta.types import Explanations
from tests.learners.explained_nets import synthetic_task


def network() -> DeepKernelTransfer:
    torch.manual_seed(0)
    learner = DeepKernelTransfer(ShapleyExplainer(16, 1), shared=5, own=3, confidence=0.0, features=8).double().eval()
    for parameter in learner.parameters():
        parameter.data += 0.2 * torch.randn_like(parameter)
    return learner.requires_grad_(False)


def statistics(learner: DeepKernelTransfer, support: Explanations) -> Statistics:
    return Statistics.of(learner.explainer.prior(support.evidence), support.evidence)


def test_the_kernel_is_waves_and_lines_in_scaled_and_learned_coordinates() -> None:
    learner, support = network(), synthetic_task().support
    state, prior = statistics(learner, support), learner.explainer.prior(support.evidence)
    z = coordinates(prior, support.evidence, state)
    features = learner.kernel(z, prior, support.evidence, state)
    hidden = learner.encoder(prior, support.evidence, state)
    share = float(1 / (1 + (-learner.share).exp()))
    for one, other in (((0, 0), (3, 0)), ((1, 2), (4, 1)), ((2, 1), (2, 1))):
        y, x, h, g = z[one], z[other], hidden[one], hidden[other]
        scales = learner.log_scales.exp()
        gap = learner.frequencies.double().mT @ (scales * (y - x))
        gap = gap + learner.directions.double().mT @ (learner.wave_map.weight @ (h - g))
        common = gap.cos().mean() + learner.log_linear.exp() * (1 + (scales * y) @ (scales * x))
        size = torch.stack([2 * torch.tanh(learner.amplitude(v) / 2) for v in (h, g)]).sum().exp()
        shared = size * (share * common + (learner.shared_map.weight @ h) @ (learner.shared_map.weight @ g))
        own = size * ((1 - share) * common + (learner.own_map.weight @ h) @ (learner.own_map.weight @ g))
        assert torch.allclose(features.shared[one] @ features.shared[other], shared)
        assert torch.allclose(features.own[one] @ features.own[other], own)
        assert torch.allclose(features.noise[one], (3 * torch.tanh(learner.log_noise(h) / 3)).exp())


def test_it_is_the_posterior_mean_at_the_noise_that_left_out_rows_advise() -> None:
    learner, support = network(), synthetic_task().support
    state, prior = statistics(learner, support), learner.explainer.prior(support.evidence)
    features = learner.kernel(coordinates(prior, support.evidence, state), prior, support.evidence, state)
    where = SupportCoordinates.of(coordinates(prior, support.evidence, state), support.evidence.players)
    moves = (support.evidence.effects != 0).any(-1, keepdim=True)
    shared, own, noise = (part.numpy() for part in (features.shared * moves, features.own * moves, features.noise))
    right = (support.attributions - learner.explainer(support.evidence).attributions).numpy()
    n_rows, n_players = right.shape
    pairs = [(n, i) for n in range(n_rows) for i in range(n_players)]
    kernel = np.array([[shared[a] @ shared[b] + (own[a] @ own[b]) * (a[1] == b[1]) for b in pairs] for a in pairs])
    best_gain, expected = 0.0, np.zeros_like(shared[0, 0])
    beyond = where.isolation().numpy()[:, None]
    for level, decay in product((0.03, 0.1, 0.3, 1.0, 3.0, 10.0), (0.3, 0.1)):
        full = kernel + level * np.diag([noise[place] for place in pairs])
        left_out = np.zeros_like(right)
        for row in range(n_rows):
            others = [k for k, place in enumerate(pairs) if place[0] != row]
            mine = [k for k, place in enumerate(pairs) if place[0] == row]
            left_out[row] = kernel[np.ix_(mine, others)] @ np.linalg.solve(
                full[np.ix_(others, others)], right.reshape(-1)[others]
            )
        left_out *= np.exp(-decay * beyond)
        left_out -= prior.spread.numpy() * left_out.sum(-1, keepdims=True)
        agreement, size = (left_out * right).sum(), (left_out**2).sum()
        strength = min(max(agreement / size, 0.0), 1.0)
        gain = strength * (2 * agreement - strength * size)
        if gain > best_gain:
            dual = np.linalg.solve(full, right.reshape(-1))
            best_gain = gain
            expected = strength * sum(d * shared[place] for d, place in zip(dual, pairs, strict=True))
    assert best_gain > 0
    assert np.allclose(learner.adapt(support).shared.numpy(), expected, atol=1e-6)


def test_harm_counts_more_than_use_in_training() -> None:
    learner, given = network(), synthetic_task()
    query = given.query
    start = learner.explainer(query.evidence).attributions
    adapted = learner.predict(learner.adapt(given.support), query.evidence)
    errors = [float((v - query.attributions).square().sum() / query.attributions.square().sum()) for v in (adapted, start)]
    ratio = np.log((errors[0] + 0.0005) / (errors[1] + 0.0005))
    assert np.isclose(float(learner.loss(given)), ratio + 0.5 * max(ratio, 0))
