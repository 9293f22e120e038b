"""What the random calls should give: by enumeration, by quadrature, and by Captum."""

from __future__ import annotations

import math

import captum.attr
import torch
from torch import Tensor

from captum_meta.estimators import gauss_legendre
from tests.attr.random_calls import Call, Parts


def exact_shapley(call: Call) -> Tensor:
    """Shapley values ``(B, M)``, by the caller's own batch at all coalitions, each of all rows at once."""
    n = call.n_players
    with torch.no_grad():
        worths = torch.stack([call.selected(_composed(call, code)).double() for code in range(2**n)])
    values = torch.zeros(len(call.inputs[0]), n, dtype=torch.float64)
    for player in range(n):
        for code in range(2**n):
            if not code >> player & 1:
                size = code.bit_count()
                weight = math.factorial(size) * math.factorial(n - size - 1) / math.factorial(n)
                values[:, player] += weight * (worths[code | 1 << player] - worths[code])
    return values


def _composed(call: Call, code: int) -> Parts:
    keep = torch.tensor([bool(code >> player & 1) for player in range(call.n_players)])[call.groups]
    parts = zip(call.inputs, call.baselines, keep.split([part[0].numel() for part in call.inputs], dim=1), strict=True)
    return tuple(torch.where(kept.reshape(x.shape), x, b) for x, b, kept in parts)


def exact_path(call: Call, multiplied: bool) -> Tensor:
    """Integrated gradients ``(B, E)`` by 25 pieces of eight nodes."""
    nodes, weights = (part.double() for part in gauss_legendre(8))
    x, b = (tuple(part.double() for part in side) for side in (call.inputs, call.baselines))
    total = torch.zeros(len(x[0]), sum(part[0].numel() for part in x), dtype=torch.float64)
    for piece in range(25):
        for node, weight in zip(nodes, weights, strict=True):
            alpha = (piece + node) / 25
            at = tuple((start + alpha * (end - start)).requires_grad_() for end, start in zip(x, b, strict=True))
            gradients = torch.autograd.grad(call.selected(at).sum(), at)
            total += weight / 25 * torch.cat([part.flatten(1) for part in gradients], dim=1)
    difference = torch.cat([(end - start).flatten(1) for end, start in zip(x, b, strict=True)], dim=1)
    return total * difference if multiplied else total


def captums(call: Call) -> Tensor:
    """What Captum's namesake says of the elements, ``(B, E)``."""
    method = captum.attr.IntegratedGradients(call.model, **call.constructor)
    names = ("baselines", "target", "additional_forward_args", "n_steps", "method")
    found = method.attribute(call.inputs, **{name: call.arguments[name] for name in names if name in call.arguments})
    return torch.cat([part.reshape(len(part), -1).double() for part in found], dim=1)
