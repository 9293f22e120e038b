"""The inner loop over a deep kernel's features derived again: a loss differentiated by autograd, one fold at a time."""

import torch
from torch import Tensor

from captum_meta.learners import DeepKernelTransfer, FeatureMAML, load_learner
from captum_meta.learners._coordinates import coordinates
from captum_meta.learners._correction import judge
from captum_meta.nn import ShapleyExplainer
from tests.learners.explained_nets import synthetic_task


def network() -> FeatureMAML:
    torch.manual_seed(0)
    learner = FeatureMAML(ShapleyExplainer(16, 1), steps=3, shared=5, own=3, features=8).double().eval()
    for parameter in learner.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    return learner


def descended(learner: FeatureMAML, psi: Tensor, chi: Tensor, residual: Tensor, tau: Tensor) -> list[list[Tensor]]:
    """w and u after every step on the given rows, from the formulas of the docstring."""
    n_players = residual.shape[1]
    parameters = [psi.new_zeros(psi.shape[-1]), chi.new_zeros(n_players, chi.shape[-1])]
    curvature = (psi.square().sum(-1) / tau).sum() + (chi.square().sum(-1) / tau).sum(0).max()
    velocity, trajectory = [torch.zeros_like(p) for p in parameters], []
    factors = [(10 * factor).exp() for factor in learner.rule.log_factors]
    for step in range(learner.steps):
        w, u = (p.detach().requires_grad_() for p in parameters)
        missed = residual - psi @ w - torch.einsum("nid,id->ni", chi, u)
        gradients = torch.autograd.grad((missed.square() / tau).sum() / (2 * curvature), [w, u])
        rates = (10 * learner.rule.rule.log_rates[step]).exp()
        momenta = learner.rule.rule.logits[step].sigmoid()
        velocity = [m * v - r * g for m, v, r, g in zip(momenta, velocity, rates, gradients, strict=True)]
        parameters = [(p + f * v).detach() for p, f, v in zip(parameters, factors, velocity, strict=True)]
        trajectory.append(parameters)
    return trajectory


def test_adapt_is_the_chosen_step_and_share_of_descent_with_momentum() -> None:
    learner, support = network(), synthetic_task().support
    state = learner.adapt(support)
    prior = learner.explainer.prior(support.evidence)
    features = learner.kernel(
        coordinates(prior, support.evidence, state.statistics), prior, support.evidence, state.statistics
    )
    moves = (support.evidence.effects != 0).any(-1, keepdim=True)
    psi, chi, tau = features.shared * moves, features.own * moves, features.noise * learner.log_level.exp()
    residual = support.attributions - learner.explainer(support.evidence).attributions
    corrections = torch.zeros(learner.steps, *residual.shape, dtype=torch.float64)
    for row in range(6):
        rest = torch.tensor([other for other in range(6) if other != row])
        for step, (w, u) in enumerate(descended(learner, psi[rest], chi[rest], residual[rest], tau[rest])):
            corrections[step, row] = psi[row] @ w + (chi[row] * u).sum(-1)
    trust, applied = judge(corrections, residual, 1.0, prior.spread, state.support)
    assert trust.strength > 0
    w, u = descended(learner, psi, chi, residual, tau)[int(trust.option)]
    assert torch.allclose(state.shared, trust.strength * w, rtol=1e-7, atol=1e-9)
    assert torch.allclose(state.own, trust.strength * u, rtol=1e-7, atol=1e-9)
    assert state.trust.decay == trust.decay
    assert torch.allclose(state.trust.reach, applied.norm(dim=-1).max())


def test_only_the_rule_learns_over_the_features_of_a_trained_kernel() -> None:
    kernel = load_learner("deep-kernel")
    assert isinstance(kernel, DeepKernelTransfer)
    learner = FeatureMAML(kernel.explainer, kernel, steps=2)
    theirs = kernel.state_dict()
    assert all(torch.equal(value, theirs[name]) for name, value in learner.state_dict().items() if name in theirs)
    learner.loss(synthetic_task().to(dtype=torch.float32)).backward()
    moving = {name for name, parameter in learner.named_parameters() if parameter.grad is not None}
    assert moving == {name for name in learner.state_dict() if name.startswith("rule.")} | {"log_level"}
