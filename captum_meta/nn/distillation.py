"""Networks learn the explained model around its support rows: its values, and its slopes (Czarnecki et al. 2017)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from captum_meta.nn.surrogate import SHARPNESS, Pass, entering, forward, leaving
from captum_meta.types import Record, State

_WIDTH = 32
_STEPS, _RATE, DECAY = 150, 0.04, 0.3
BATCH = 128
_TINY = 1e-12
SLOPES = 4.0
"""Largest weight of the squared errors of slopes, in units of the elements' deviation."""
_FUSED = ("cpu", "cuda", "mps")


@dataclass(frozen=True)
class Lesson(Record):
    """Where the explained model is known.

    Attributes:
        members: ``(*batch, K, S, M)`` bool, coalitions of K rows.
        inputs, baselines: ``(*batch, K, M, D)``, elements of their players.
        worths: ``(*batch, K, S)``, f minus f(baseline), in units of their root mean square.
        known: ``(*batch, F, K, S)`` bool, which of them each of F networks learns from.
        heads: ``(*batch, K)`` int64, of which output these are.
        ranks: ``(*batch, M)`` int64, the players' numbers, by which initial weights are given to them.
        slopes: ``(*batch, K, S, M, D)``, derivatives of the worths with respect to the elements, or None.
    """

    members: Tensor
    inputs: Tensor
    baselines: Tensor
    worths: Tensor
    known: Tensor
    heads: Tensor
    ranks: Tensor
    slopes: Tensor | None = None


def learn(lesson: Lesson, n_heads: int) -> State:
    """Networks of ``n_heads`` outputs: weights ``(*batch, F, ...)`` after some hundred steps of AdamW."""
    with torch.inference_mode(False), torch.enable_grad():
        lesson = lesson.map(lambda tensor: tensor.detach().clone())
        generator = Generator().manual_seed(0)
        weights = initial(lesson, n_heads, generator)
        parameters = {name: value.requires_grad_(True) for name, value in weights.items()}
        fused = lesson.worths.device.type in _FUSED
        optimizer = torch.optim.AdamW(list(parameters.values()), _RATE, weight_decay=DECAY, fused=fused)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, _STEPS, pct_start=0.2)
        n_rows, n_points = lesson.worths.shape[-2:]
        weight = slope_weight(lesson)
        for _ in range(_STEPS):
            some = torch.randint(n_points, (-(-BATCH // n_rows),), generator=generator).to(lesson.worths.device)
            optimizer.zero_grad()
            misfit(parameters, lesson, weight, some).backward()
            optimizer.step()
            schedule.step()
    return {name: value.detach() for name, value in parameters.items()}


def slope_weight(lesson: Lesson) -> Tensor | None:
    r"""How much the errors of slopes count for each network, ``(*batch, F)``; None where there are no slopes.

    .. math:: \frac{4}{\max(1, q)^3}, \qquad
        q \sum_S \Delta_S^2 = \sum_S \Big(\Delta_S - \frac{\nabla v(S) + \nabla v(\bar S)}{2} (x_{\bar S} - x_S)\Big)^2,
        \qquad \Delta_S = v(\bar S) - v(S)

    q is what the trapezoidal rule misses of the differences between coalitions and their complements: where the model is
    steep on a scale much smaller than that of the data, its slopes say little of it.
    """
    if lesson.slopes is None:
        return None
    along = (lesson.slopes * (lesson.inputs - lesson.baselines).unsqueeze(-3)).sum(-1)
    (one, other), (here, there), (before, after) = (
        (part[..., 0::2, :], part[..., 1::2, :]) for part in (lesson.members.to(along), along, lesson.worths.unsqueeze(-1))
    )
    change = (after - before).squeeze(-1)
    missed = ((here + there) * (other - one)).sum(-1) / 2 - change
    known = (lesson.known[..., 0::2] & lesson.known[..., 1::2]).to(along)
    sums = [(part.square().unsqueeze(-3) * known).sum((-2, -1)) for part in (missed, change)]
    return SLOPES / (sums[0] / sums[1].clamp(min=_TINY)).clamp(min=1) ** 3


def misfit(weights: State, lesson: Lesson, slope_weight: Tensor | None, some: Tensor) -> Tensor:
    """Mean squared errors at the coalitions ``some``, summed over the networks."""
    start, gains = entering(weights, lesson.inputs, lesson.baselines)
    leave = leaving(weights, lesson.heads)
    members = torch.nn.functional.pad(lesson.members[..., some, :], (0, 0, 0, 1)).to(start)
    found, known = forward(weights, start, gains, leave, members), lesson.known[..., some]
    missed = found.values[..., :-1] - found.values[..., -1:] - lesson.worths[..., some].unsqueeze(-3)
    loss = (missed * known).square().mean((-2, -1)).sum()
    if lesson.slopes is None or slope_weight is None:
        return loss
    bent = slopes(weights, found, leave)[..., :-1, :] - lesson.slopes[..., some, :, :].flatten(-2).unsqueeze(-4)
    return loss + (slope_weight * (bent.square().sum(-1) * known).mean((-2, -1))).sum()


def slopes(weights: State, found: Pass, leave: Tensor) -> Tensor:
    """Derivatives of the networks' values with respect to the elements, ``(*batch, F, N, S, M * D)``."""
    shape = found.values.shape[-2:]
    back = (_activation_slope(found.second).unflatten(-2, shape) * leave.mT).flatten(-3, -2)
    back = _activation_slope(found.first) * (back @ weights["inner"].mT)
    return (back @ weights["enter"].flatten(-3, -2).mT).unflatten(-2, shape)


def _activation_slope(x: Tensor) -> Tensor:
    gate = torch.sigmoid(SHARPNESS * x)
    return gate * (1 + SHARPNESS * x * (1 - gate))


def initial(lesson: Lesson, n_heads: int, generator: Generator) -> State:
    """The same initial weights for all members, tasks and outputs."""
    like, batch, members = lesson.worths, lesson.ranks.shape[:-1], lesson.known.shape[-3]
    n_players, n_elements = lesson.inputs.shape[-2:]

    def normal(*shape: int) -> Tensor:
        drawn = (
            torch.randn(shape, generator=generator, device="cpu", dtype=torch.float32)
            / torch.Size(shape[:-1]).numel() ** 0.5
        )
        return drawn.to(like)

    def repeated(value: Tensor) -> Tensor:
        return value.unsqueeze(len(batch)).repeat(*[1] * len(batch), members, *[1] * (value.dim() - len(batch)))

    enter = normal(n_players, n_elements, _WIDTH)[lesson.ranks]
    inner, leave = normal(_WIDTH, _WIDTH), normal(_WIDTH, 1).expand(-1, n_heads)
    nothing = like.new_zeros(*batch, 1, _WIDTH)
    return {
        "enter": repeated(enter),
        "enter bias": repeated(nothing),
        "inner": repeated(inner.expand(*batch, -1, -1)),
        "inner bias": repeated(nothing),
        "leave": repeated(leave.expand(*batch, -1, -1)),
    }
