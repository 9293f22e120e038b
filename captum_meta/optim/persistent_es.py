"""Evolution strategies for long inner loops."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Generator, Tensor, nn
from torch.func import vmap

from captum_meta._numbers import at_least, positive
from captum_meta._random import row_keys
from captum_meta.optim.hypergradients import FirstOrder, Hypergradient
from captum_meta.optim.per_task import call_per_task
from captum_meta.optim.problem import InnerProblem, Tensors
from captum_meta.optim.rules import UpdateRule
from captum_meta.optim.truncated import with_gradients


class PersistentES(Hypergradient):
    r"""Persistent evolution strategies (PES, Vicol et al. 2021), antithetic.

    .. math:: \nabla L \approx \frac{1}{2 N \sigma^2 W} \sum_{i=1}^N \sum_{w=1}^W
        \Big(\sum_{v \le w} \epsilon_{iv}\Big) \big[\ell(\theta_w^{+i}) - \ell(\theta_w^{-i})\big]

    where theta_w ends window w, of the loops whose rule has the parameters phi plus or minus epsilon: a perturbation of
    standard deviation sigma, new in each window; what an end owes to earlier windows is attributed to theirs. This is an
    unbiased estimate of the gradient of L, smoothed by the perturbations, however long the loop: nothing is
    differentiated but the inner loss, so nothing explodes, and memory does not grow with the steps. In exchange it is
    noisy, more so with more parameters. Only the rule receives a gradient. All 2 N loops run side by side.

    Perturbations follow from ``seed`` and the rule's parameters, so that they differ from one meta-step to the next and
    a resumed run draws the same.

    Args:
        length: steps of a window.
        pairs: N, pairs of inner loops run for each estimate.
        sigma: standard deviation of the perturbations.
        seed: of the perturbations.
    """

    second_order = False
    uncompiled = "runs its inner loops side by side under torch.func.vmap, which cannot run compiled graphs"

    def __init__(self, length: int, pairs: int = 4, sigma: float = 0.01, seed: int = 0) -> None:
        self.length, self.pairs = at_least("length", length, 1), at_least("pairs", pairs, 1)
        self.sigma, self.seed = positive("sigma", sigma), seed

    def solve(self, problem: InnerProblem, start: Tensors) -> Tensors:
        """The end of the unperturbed loop, without a gradient: only that of a loss can be estimated."""
        return {name: value.detach() for name, value in FirstOrder().solve(problem, start).items()}

    def loss(self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor]) -> Tensor:
        """Mean over all perturbed loops of the outcome where each window ends."""
        known = [value for value in problem.rule.parameters() if value.requires_grad]
        flat = nn.utils.parameters_to_vector(known)
        count = max(1, -(-problem.steps // self.length))
        generator = Generator().manual_seed(int(row_keys((flat.detach().unsqueeze(0).cpu(),))[0] ^ self.seed))
        drawn = [torch.randn(count, len(flat), generator=generator) for _ in range(self.pairs)]
        noise = self.sigma * torch.stack(drawn).to(flat.detach())
        losses = self._losses(problem, start, outcome, flat.detach() + torch.cat([noise, -noise]))
        up, down = losses.chunk(2)
        differences = (up - down) / (2 * self.pairs * self.sigma**2 * count)
        return with_gradients(losses.mean(), [flat], [torch.einsum("nw,nwp->p", differences, noise.cumsum(1))])

    def _losses(
        self, problem: InnerProblem, start: Tensors, outcome: Callable[[Tensors], Tensor], perturbed: Tensor
    ) -> Tensor:
        """The outcome ``(L, W)`` where each window ends, of L loops side by side.

        Args:
            perturbed: the rule's parameters in each window, ``(L, W, P)``.
        """
        together = replace(problem, loss=lambda fast: _each(problem.loss, fast).sum())
        fast = {name: value.detach().expand(len(perturbed), *value.shape) for name, value in start.items()}
        memory: Tensors = {}
        losses = []
        for window, moved in enumerate(perturbed.unbind(1)):
            rule = _of_each(problem.rule, moved)
            if window == 0:
                memory = call_per_task(problem.rule, "initial_memory", rule, fast)
            first = window * self.length
            for step in range(first, min(first + self.length, problem.steps)):
                gradients = together.gradient(fast, create_graph=False)
                fast, memory = call_per_task(problem.rule, "update", rule, step, fast, gradients, memory)
                fast, memory = ({name: v.detach() for name, v in some.items()} for some in (fast, memory))
            losses.append(_each(outcome, fast).detach())
        return torch.stack(losses, dim=1)


def _of_each(rule: UpdateRule, flat: Tensor) -> Tensors:
    """Vectors ``(L, P)`` of the rule's trained parameters as these, ``(L, *shape)`` by name."""
    trained = {name: value for name, value in rule.named_parameters() if value.requires_grad}
    parts = flat.split([value.numel() for value in trained.values()], dim=-1)
    return {name: part.reshape(-1, *value.shape) for part, (name, value) in zip(parts, trained.items(), strict=True)}


def _each(function: Callable[[Tensors], Tensor], fast: Tensors) -> Tensor:
    """The function's numbers ``(L,)`` for parameters ``(L, T, *shape)``; where vmap cannot, one after another."""
    try:
        return vmap(function, randomness="different")(fast)
    except RuntimeError:
        count = len(next(iter(fast.values())))
        return torch.stack([function({name: value[index] for name, value in fast.items()}) for index in range(count)])
