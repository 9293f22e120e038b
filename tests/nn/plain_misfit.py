"""What networks miss of the explained model, written plainly and differentiated by autograd."""

import torch
from torch import Tensor

from captum_meta.nn.lesson import Lesson
from captum_meta.nn.surrogate import Networks


def answers(weights: Networks, points: Tensor, heads: Tensor) -> Tensor:
    """Of networks ``(T, F, ...)`` at ``points (T, K, S, E)``, ``(T, F, K, S)``."""
    hidden = torch.einsum("tkse,tfew->tfksw", points, weights.enter.flatten(2, 3)) + weights.enter_bias.unsqueeze(2)
    hidden = hidden / (1 + torch.exp(-1.702 * hidden))
    hidden = torch.einsum("tfksw,tfwv->tfksv", hidden, weights.inner) + weights.inner_bias.unsqueeze(2)
    hidden = hidden / (1 + torch.exp(-1.702 * hidden))
    all_outputs = torch.einsum("tfksv,tfvo->tfkso", hidden, weights.leave)
    index = heads[:, None, :, None, None].expand(*all_outputs.shape[:-1], 1)
    return all_outputs.gather(-1, index).squeeze(-1)


def misfit(weights: Networks, lesson: Lesson, gradient_weight: Tensor, some: Tensor) -> Tensor:
    """Mean squared errors of values, and of gradients times ``gradient_weight (T, F)``, at the coalitions ``some``."""
    members = lesson.members[:, :, some].unsqueeze(-1)
    points = torch.where(members, lesson.inputs.unsqueeze(2), lesson.baselines.unsqueeze(2)).flatten(3)
    start = answers(weights, lesson.baselines.flatten(2).unsqueeze(2), lesson.heads)
    known = lesson.known[..., some]
    n_networks = known.shape[1]
    loss = torch.zeros((), dtype=points.dtype)
    for network in range(n_networks):
        own = weights[:, network : network + 1]
        at = points.clone().requires_grad_()
        values = answers(own, at, lesson.heads)
        missed = values - start[:, network : network + 1] - lesson.worths[:, None, :, some]
        loss = loss + (missed * known[:, network : network + 1]).square().mean((2, 3)).sum()
        if lesson.gradients is not None:
            (gradients,) = torch.autograd.grad(values.sum(), at, create_graph=True)
            errors = (gradients - lesson.gradients[:, :, some].flatten(3)).square().sum(-1) * known[:, network]
            loss = loss + (gradient_weight[:, network] * errors.mean((1, 2))).sum()
    return loss
