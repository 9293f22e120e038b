"""Evolution strategies for long inner loops."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn

from captum_meta._random import row_keys
from captum_meta.optim.hypergradients import FirstOrder, Hypergradient
from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.optim.rules import UpdateRule
from captum_meta.optim.truncated import windows, with_gradients


class PersistentES(Hypergradient):
    r"""Persistent evolution strategies (PES, Vicol et al. 2021), antithetic.

    .. math:: \nabla L \approx \frac{1}{2 N \sigma^2 W} \sum_{i=1}^N \sum_{w=1}^W
        \Big(\sum_{v \le w} \epsilon_{iv}\Big) \big[\ell(\theta_w^{+i}) - \ell(\theta_w^{-i})\big]

    where theta_w ends window w, of the loops whose rule has the parameters phi plus or minus epsilon: a perturbation of
    standard deviation sigma, new in each window; what an end owes to earlier windows is attributed to theirs. This is an
    unbiased estimate of the gradient of L, smoothed by the perturbations, however long the loop: nothing is
    differentiated but the inner loss, so nothing explodes, and memory does not grow with the steps. In exchange it is
    noisy, more so with more parameters. Only the rule receives a gradient.

    Perturbations follow from ``seed`` and the rule's parameters, so that they differ from one meta-step to the next and
    a resumed run draws the same.

    Args:
        length: steps of a window.
        pairs: N, pairs of inner loops run for each estimate.
        sigma: standard deviation of the perturbations.
        seed: of the perturbations.
    """

    second_order = False

    def __init__(self, length: int, pairs: int = 4, sigma: float = 0.01, seed: int = 0) -> None:
        self.length, self.pairs, self.sigma, self.seed = length, pairs, sigma, seed

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        """The end of the unperturbed loop, without a gradient: only that of a loss can be estimated."""
        return {name: value.detach() for name, value in FirstOrder().solve(problem, start).items()}

    def loss(self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor]) -> Tensor:
        """Mean over all perturbed loops of the outcome where each window ends."""
        known = [value for value in problem.rule.parameters() if value.requires_grad]
        flat = nn.utils.parameters_to_vector(known).detach()
        start = {name: value.detach() for name, value in start.items()}
        count = max(1, -(-problem.steps // self.length))
        generator = Generator().manual_seed(int(row_keys((flat.unsqueeze(0).cpu(),))[0] ^ self.seed))
        value, gradient = flat.new_zeros(()), torch.zeros_like(flat)
        for _ in range(self.pairs):
            noise = self.sigma * torch.randn(count, len(flat), generator=generator).to(flat)
            losses = [self._losses(problem, start, outcome, flat + sign * noise) for sign in (1, -1)]
            value = value + (losses[0] + losses[1]).mean() / (2 * self.pairs)
            difference = (losses[0] - losses[1]) / (2 * self.pairs * self.sigma**2 * count)
            gradient = gradient + difference @ noise.cumsum(0)
        return with_gradients(value, [nn.utils.parameters_to_vector(known)], [gradient])

    def _losses(
        self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor], perturbed: Tensor
    ) -> Tensor:
        """Of a loop whose rule has parameters ``(W, n)``, one row for each window: the outcome where each ends, ``(W,)``."""
        rule = deepcopy(problem.rule)
        trained = [value for value in rule.parameters() if value.requires_grad]

        def rule_of(window: int) -> UpdateRule:
            nn.utils.vector_to_parameters(perturbed[window], trained)
            return rule.requires_grad_(False)

        ends = windows(replace(problem, rule=rule), start, self.length, False, rule_of)
        return torch.stack([outcome(end).detach() for end in ends])
