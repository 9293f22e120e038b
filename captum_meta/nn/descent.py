"""A learned optimizer that fits networks to the explained model."""

from __future__ import annotations

from dataclasses import fields, replace
from math import log

import torch
from torch import Generator, Tensor, nn

from captum_meta._numbers import at_least
from captum_meta.nn.blocks import Described
from captum_meta.nn.distillation import BATCH, DECAY, GRADIENT_WEIGHT
from captum_meta.nn.inner_loop import gradients
from captum_meta.nn.lesson import Lesson, initial
from captum_meta.nn.surrogate import Networks

_NAMES = tuple(each.name for each in fields(Networks))
_SCALED = ("enter", "inner", "leave")
_RATE, _WARM, _MOMENTA = 0.1, 0.25, (0.9, 0.999)
_LEAST, _TINY = 1e-4, 1e-8


class LearnedDescent(Described, nn.Module):
    r"""Few steps of AdamW in place of many: its constants are learned over many models (Meta-SGD: Li et al. 2017).

    .. math:: \theta_j \leftarrow (1 - \alpha_{s,j} \lambda)\, \theta_j -
        \alpha_{s,j} \frac{\hat m_j}{\sqrt{\hat v_j} + \epsilon},
        \qquad \alpha_{s,j} = \alpha_j\, c(s / S)^p

    for each tensor j at step s of S, where c rises from 0 to 1 and falls again, along half a wave of a cosine each. Learned
    are the rates :math:`\alpha_j`, when c peaks, p, the decay lambda, both momenta, the sizes of the initial weights and how
    much the errors of gradients weigh beside those of values. What each player's weights begin as is drawn, for players have
    no meaning in common from one model to the next.

    Args:
        steps: S.
    """

    def __init__(self, steps: int) -> None:
        super().__init__()
        self.steps = at_least("steps", steps, 1)
        self.log_rates = nn.Parameter(torch.full((len(_NAMES),), log(_RATE)))
        self.log_sizes = nn.Parameter(torch.zeros(len(_SCALED)))
        self.warm = nn.Parameter(torch.tensor(log(_WARM / (1 - _WARM))))
        self.log_power = nn.Parameter(torch.tensor(0.0))
        self.log_decay = nn.Parameter(torch.tensor(log(DECAY)))
        self.momenta = nn.Parameter(torch.tensor([log(share / (1 - share)) for share in _MOMENTA], dtype=torch.float32))
        self.log_slopes = nn.Parameter(torch.tensor(log(GRADIENT_WEIGHT)))

    @torch.no_grad()
    def forward(self, lesson: Lesson, n_heads: int) -> Networks:
        """Networks of ``n_heads`` outputs that have learned the lesson."""
        generator = Generator().manual_seed(0)
        weights = initial(lesson, n_heads, generator)
        sizes = dict(zip(_SCALED, self.log_sizes.exp(), strict=True))
        weights = replace(weights, **{name: getattr(weights, name) * size.to(weights.inner) for name, size in sizes.items()})
        shapes = {name: value.shape[lesson.known.dim() - 2 :] for name, value in vars(weights).items()}
        rates = torch.cat([r.expand(shape.numel()) for r, shape in zip(self.log_rates.exp(), shapes.values(), strict=True)])
        theta = _flat(weights)
        rates, decay = rates.to(theta), float(self.log_decay.exp())
        first, second = torch.zeros_like(theta), torch.zeros_like(theta)
        remembered, squares = self.momenta.double().sigmoid().tolist()
        n_rows, n_points = lesson.worths.shape[-2:]
        for step, height in enumerate(self.heights().tolist()):
            some = torch.randint(n_points, (-(-BATCH // n_rows),), generator=generator).to(theta.device)
            gradient = _flat(gradients(_by_name(theta, shapes), lesson, some, float(self.log_slopes.exp())))
            first = first.lerp(gradient, 1 - remembered)
            second = squares * second + (1 - squares) * gradient.square()
            scale = (second / (1 - squares ** (step + 1))).sqrt() + _TINY
            theta = theta - height * rates * (decay * theta + first / (1 - remembered ** (step + 1)) / scale)
        return _by_name(theta, shapes)

    def heights(self) -> Tensor:
        """Factors of the rates at each step, ``(S,)``."""
        warm = self.warm.sigmoid()
        along = torch.arange(1, self.steps + 1).to(warm) / self.steps
        rising, falling = along / warm, (1 - along) / (1 - warm)
        return ((1 - (torch.pi * torch.minimum(rising, falling)).cos()) / 2).clamp(min=_LEAST) ** self.log_power.exp()


def _flat(weights: Networks) -> Tensor:
    """All of a network's weights in one row."""
    batch = weights.leave.shape[:-2]
    return torch.cat([value.reshape(*batch, -1) for value in vars(weights).values()], dim=-1)


def _by_name(flat: Tensor, shapes: dict[str, torch.Size]) -> Networks:
    parts = flat.split([shape.numel() for shape in shapes.values()], dim=-1)
    return Networks(*(part.unflatten(-1, shape) for part, shape in zip(parts, shapes.values(), strict=True)))
