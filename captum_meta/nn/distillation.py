"""Networks fitted to the explained model's values and gradients around its support rows (Czarnecki et al. 2017)."""

from __future__ import annotations

from math import cos, pi

import torch
from torch import Generator, Tensor, nn

from captum_meta.nn.blocks import Described
from captum_meta.nn.inner_loop import gradients
from captum_meta.nn.lesson import Lesson, initial
from captum_meta.nn.surrogate import Networks

_STEPS, _RATE, DECAY, _RISING = 150, 0.04, 0.3, 0.2
_SQUARES, _EPSILON = 0.999, 1e-8
BATCH = 128
_TINY = 1e-12
GRADIENT_WEIGHT = 4.0
"""Largest weight of the squared errors of gradients, in units of the elements' deviation."""


class Distillation(Described, nn.Module):
    """Networks learn the explained model by some hundred steps of AdamW (Hinton, Vinyals and Dean 2015)."""

    def forward(self, lesson: Lesson, n_heads: int) -> Networks:
        """Networks of ``n_heads`` outputs that have learned the lesson."""
        return learn(lesson, n_heads)


def learn(lesson: Lesson, n_heads: int) -> Networks:
    """Networks of ``n_heads`` outputs: weights ``(*batch, F, ...)`` after some hundred steps of AdamW.

    AdamW (Loshchilov and Hutter 2019) with the one-cycle schedule of rates and momenta (Smith and Topin 2019), written out
    as the gradients are: torch's own, with autograd and a call for each tensor, takes twice as long, and first imports
    torch's compiler.
    """
    with torch.inference_mode(False), torch.no_grad():
        lesson = lesson.map(torch.clone)
        generator = Generator().manual_seed(0)
        networks = initial(lesson, n_heads, generator)
        weights = vars(networks)
        first, second = ({name: torch.zeros_like(value) for name, value in weights.items()} for _ in range(2))
        n_rows, n_points = lesson.worths.shape[-2:]
        weight = gradient_weight(lesson)
        for step, (rate, momentum) in enumerate(one_cycle(_RATE, _STEPS, _RISING), start=1):
            some = torch.randint(n_points, (-(-BATCH // n_rows),), generator=generator).to(lesson.worths.device)
            for name, gradient in vars(gradients(networks, lesson, some, weight)).items():
                adamw_step(weights[name], gradient, first[name], second[name], step, rate, momentum, DECAY)
    return networks


def adamw_step(
    weight: Tensor, slope: Tensor, first: Tensor, second: Tensor, step: int, rate: float, momentum: float, decay: float
) -> None:
    """Step number ``step``, from 1, of AdamW in place, with the moments ``first`` and ``second``, as torch's own."""
    first.lerp_(slope, 1 - momentum)
    second.mul_(_SQUARES).addcmul_(slope, slope, value=1 - _SQUARES)
    size = (second.sqrt() / (1 - _SQUARES**step) ** 0.5).add_(_EPSILON)
    weight.mul_(1 - rate * decay).addcdiv_(first, size, value=-rate / (1 - momentum**step))


def one_cycle(highest: float, steps: int, rising: float) -> list[tuple[float, float]]:
    """Rate and momentum of each step: rates rise in a share of the steps, then fall, and momenta the other way."""
    peak, last, found = rising * steps - 1, steps - 1, []
    for step in range(steps):
        share = step / peak if step <= peak else (step - peak) / (last - peak)
        low = highest / 25
        rates, momenta = ((low, highest), (0.95, 0.85)) if step <= peak else ((highest, low / 1e4), (0.85, 0.95))
        found.append((_along_a_cosine(*rates, share), _along_a_cosine(*momenta, share)))
    return found


def _along_a_cosine(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + cos(pi * share))


def gradient_weight(lesson: Lesson) -> Tensor | None:
    r"""Weight of the gradients' errors for each network, ``(*batch, F)``; None where there are no gradients.

    .. math:: \frac{4}{\max(1, q)^3}, \qquad
        q \sum_S \Delta_S^2 = \sum_S \Big(\Delta_S - \frac{\nabla v(S) + \nabla v(\bar S)}{2} (x_{\bar S} - x_S)\Big)^2,
        \qquad \Delta_S = v(\bar S) - v(S)

    q is the relative error of the trapezoidal rule for the differences between coalitions and their complements: where f is
    steep on a scale much smaller than that of the data, its gradients carry little information about it.
    """
    if lesson.gradients is None:
        return None
    along = (lesson.gradients * (lesson.inputs - lesson.baselines).unsqueeze(-3)).sum(-1)
    (one, other), (here, there), (before, after) = (
        (part[..., 0::2, :], part[..., 1::2, :]) for part in (lesson.members.to(along), along, lesson.worths.unsqueeze(-1))
    )
    change = (after - before).squeeze(-1)
    missed = ((here + there) * (other - one)).sum(-1) / 2 - change
    known = (lesson.known[..., 0::2] & lesson.known[..., 1::2]).to(along)
    sums = [(part.square().unsqueeze(-3) * known).sum((-2, -1)) for part in (missed, change)]
    return GRADIENT_WEIGHT / (sums[0] / sums[1].clamp(min=_TINY)).clamp(min=1) ** 3
