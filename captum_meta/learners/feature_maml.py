"""MAML over the features of a deep kernel."""

from __future__ import annotations

from collections.abc import Mapping
from math import log
from typing import Any

import torch
from torch import Tensor, nn

from captum_meta._numbers import at_least
from captum_meta.learners._correction import folds
from captum_meta.learners._kernel import Fit
from captum_meta.learners.base import MetaLearner
from captum_meta.learners.deep_kernel import DeepKernelTransfer
from captum_meta.nn import EvidenceEncoder, Explainer
from captum_meta.optim import MomentumSGD, Preconditioned, Tensors

_FOLDS = 16
_TINY = 1e-12


class FeatureMAML(DeepKernelTransfer):
    r"""A few gradient steps with learned rates, on the features of a deep kernel (Finn et al. 2017, Li et al. 2017).

    Fast are linear weights of the features of :class:`DeepKernelTransfer`, w for all players and :math:`u_i` of each
    player's own, which correct the zero-shot explanation and start at 0. With r what it misses on the support rows, they
    descend with momentum along the gradient of

    .. math:: L(w, u) = \frac{1}{2 c} \sum_{n,i} \frac{(r_{ni} - \psi_{ni} \cdot w - \chi_{ni} \cdot u_i)^2}
        {\tau_{ni}}, \qquad c = \sum_{n,i} \frac{|\psi_{ni}|^2}{\tau_{ni}} + \max_i \sum_n \frac{|\chi_{ni}|^2}{\tau_{ni}}

    where tau is the variance of what the features do not explain, the labels' noise included; c bounds the curvature, so
    that the same rates suit every model. The rate of each feature, and a rate and a momentum of each step, are learned by
    backpropagation through the steps. As in :class:`KernelRidge`, left-out rows, up to sixteen parts of them, choose the
    number of steps and how much of the correction is applied, bound it, and choose how soon it fades.

    Args:
        explainer: the meta-trained explainer.
        kernel: a :class:`DeepKernelTransfer` of the same form, whose trained features are taken over and stay as they are.
        steps: of the inner loop.
        rate, momentum: from which the learned ones start.
        encoder, shared, own, confidence, features: as in :class:`DeepKernelTransfer`.
    """

    def __init__(
        self,
        explainer: Explainer,
        kernel: MetaLearner | None = None,
        steps: int = 8,
        rate: float = 1.0,
        momentum: float = 0.8,
        encoder: EvidenceEncoder | Mapping[str, Any] | None = None,
        shared: int = 32,
        own: int = 16,
        confidence: float = 1.0,
        features: int = 64,
    ) -> None:
        super().__init__(explainer, encoder, shared, own, confidence, features)
        if kernel is not None:
            self.load_state_dict(kernel.state_dict())
            self.requires_grad_(False)
        self.steps = at_least("steps", steps, 1)
        common = features + len(self.log_scales) + 1
        shapes = {"shared": torch.Size([common + shared]), "own": torch.Size([common + own])}
        self.rule = Preconditioned(MomentumSGD(list(shapes), steps, rate, momentum), shapes)
        self.log_level = nn.Parameter(torch.tensor(log(0.3)))

    def arguments(self) -> dict[str, object]:
        return {"steps": self.steps, **super().arguments()}

    def fits(self, shared: Tensor, own: Tensor, residual: Tensor, unexplained: Tensor, noise: Tensor) -> list[Fit]:
        """The fast weights after each step."""
        left_out = folds(residual.square().sum(-1), _FOLDS)
        used = torch.cat([torch.ones_like(left_out[..., :1, :]), ~left_out], dim=-2)
        flat, by_player = shared.transpose(-3, -2).flatten(-3, -2), own.transpose(-3, -2)
        weights = 1 / (self.log_level.exp() * unexplained + noise)
        judges = left_out.mT.unsqueeze(-3)
        found = []
        for fast in self._descend(flat, by_player, residual.mT, weights.mT, used.mT):
            corrections = (_predicted(fast, flat, by_player)[..., 1:] * judges).sum(-1).mT
            found.append((fast["shared"][..., 0, :], fast["own"][..., 0, :], corrections))
        return found

    def _descend(self, flat: Tensor, by_player: Tensor, target: Tensor, weights: Tensor, used: Tensor) -> list[Tensors]:
        """Weights after each step, ``shared (*batch, F, D)`` and ``own (*batch, M, F, d)``, of F inner loops side by side.

        Args:
            flat: psi, ``(*batch, M * K, D)``.
            by_player: chi, ``(*batch, M, K, d)``.
            target: r, ``(*batch, M, K)``.
            weights: 1 / tau, same shape.
            used: which rows each loop sees, ``(*batch, K, F)``.
        """
        n_loops, batch = used.shape[-1], used.shape[:-2]
        weights = weights.unsqueeze(-1) * used.unsqueeze(-3)
        sizes = flat.square().sum(-1).reshape(*target.shape, 1) * weights
        own_sizes = by_player.square().sum(-1, keepdim=True) * weights
        curvature = sizes.sum((-3, -2)) + own_sizes.sum(-2).amax(-2)
        weights = weights / curvature.clamp(min=_TINY)[..., None, None, :]
        fast = {
            "shared": flat.new_zeros(*batch, n_loops, flat.shape[-1]),
            "own": flat.new_zeros(*batch, target.shape[-2], n_loops, by_player.shape[-1]),
        }
        memory, trajectory = self.rule.initial_memory(fast), []
        for step in range(self.steps):
            missed = weights * (_predicted(fast, flat, by_player) - target.unsqueeze(-1))
            gradients = {"shared": missed.flatten(-3, -2).mT @ flat, "own": missed.mT @ by_player}
            fast, memory = self.rule.update(step, fast, gradients, memory)
            trajectory.append(fast)
        return trajectory


def _predicted(fast: Tensors, flat: Tensor, by_player: Tensor) -> Tensor:
    """Corrections ``(*batch, M, K, F)``."""
    of_all = (flat @ fast["shared"].mT).unflatten(-2, by_player.shape[-3:-1])
    return of_all + by_player @ fast["own"].mT
