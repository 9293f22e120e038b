"""The gradient of the networks' loss on the explained model's values and gradients, written out."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from captum_meta.nn.lesson import Lesson
from captum_meta.nn.surrogate import SHARPNESS, Networks


@dataclass(frozen=True)
class Bend:
    """x times the sigmoid of 1.702 x, and its first and second derivative."""

    value: Tensor
    first: Tensor
    second: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Bend:
        sharp = SHARPNESS * x
        gate = sharp.sigmoid()
        closing = 1 - gate
        opening = SHARPNESS * gate * closing
        return cls(x * gate, gate + x * opening, opening * (2 + sharp * (closing - gate)))


def gradients(weights: Networks, lesson: Lesson, some: Tensor, gradient_weight: float | Tensor | None) -> Networks:
    """Gradient of the networks' loss at the coalitions ``some`` with respect to the weights.

    .. math:: \\sum_f \\Big[\\overline{(h_f(S) - h_f(\\emptyset) - v(S))^2}
        + \\lambda_f \\overline{|\\nabla h_f(S) - \\nabla v(S)|^2}\\Big]

    with means over the rows and coalitions, of those that the network f knows, and :math:`\\lambda` the ``gradient_weight``,
    a number or one for each network ``(*batch, F)``; None where the lesson has no gradients.

    The gradient of a loss of gradients is a second derivative of the networks. Written out, it takes half the time of
    backpropagating twice, and steps along it can be backpropagated through in turn. The last point of each row is its
    baseline.
    """
    enter, inner = weights.enter.flatten(-3, -2), weights.inner
    n_rows, n_points = lesson.worths.shape[-2], len(some) + 1
    index = lesson.heads[..., None, None, :].expand(*weights.leave.shape[:-1], n_rows)
    leave = weights.leave.gather(-1, index).mT.repeat_interleave(n_points, dim=-2)
    points = _points(lesson, some)
    known = torch.nn.functional.pad(lesson.known[..., some].to(points), (0, 1)) * (2 / (n_rows * len(some)))

    first = Bend.of(points @ enter + weights.enter_bias)
    second = Bend.of(first.value @ inner + weights.inner_bias)
    values = (second.value * leave).sum(-1).unflatten(-1, (n_rows, n_points))
    worths = torch.nn.functional.pad(lesson.worths[..., some], (0, 1)).unsqueeze(-3)
    missed = known * (values - values[..., -1:] - worths)
    by_value = torch.cat([missed[..., :-1], -missed[..., :-1].sum(-1, keepdim=True)], dim=-1).flatten(-2).unsqueeze(-1)
    by_leave, by_second = by_value * second.value, by_value * leave * second.first

    if lesson.gradients is None:
        by_first = (by_second @ inner.mT) * first.first
        by_enter, by_inner = points.mT @ by_first, first.value.mT @ by_second
    else:
        into_second = leave * second.first
        reaching = into_second @ inner.mT
        into_first = reaching * first.first
        right = torch.nn.functional.pad(lesson.gradients[..., some, :, :].flatten(-2), (0, 0, 0, 1)).flatten(-3, -2)
        weight = torch.as_tensor(0.0 if gradient_weight is None else gradient_weight).to(points)[..., None, None]
        missed = weight * known.flatten(-2).unsqueeze(-1) * (into_first @ enter.mT - right.unsqueeze(-3))
        by_into_first = missed @ enter
        by_reaching = by_into_first * first.first
        by_into_second = by_reaching @ inner
        by_leave = by_leave + by_into_second * second.first
        by_second = by_second + by_into_second * leave * second.second
        by_first = (by_second @ inner.mT) * first.first + by_into_first * reaching * first.second
        by_enter = points.mT @ by_first + missed.mT @ into_first
        by_inner = first.value.mT @ by_second + by_reaching.mT @ into_second
    by_row = by_leave.unflatten(-2, (n_rows, n_points)).sum(-2).mT
    return Networks(
        enter=by_enter.unflatten(-2, weights.enter.shape[-3:-1]),
        enter_bias=by_first.sum(-2, keepdim=True),
        inner=by_inner,
        inner_bias=by_second.sum(-2, keepdim=True),
        leave=torch.zeros_like(weights.leave).scatter_add(-1, index, by_row),
    )


def _points(lesson: Lesson, some: Tensor) -> Tensor:
    """The elements at the coalitions ``some`` of each row and at its baseline, ``(*batch, 1, K * (s + 1), M * D)``."""
    members = torch.nn.functional.pad(lesson.members[..., some, :], (0, 0, 0, 1)).unsqueeze(-1)
    points = torch.where(members, lesson.inputs.unsqueeze(-3), lesson.baselines.unsqueeze(-3))
    return points.flatten(-2).flatten(-3, -2).unsqueeze(-3)
