"""Evolution strategies: the gradient of a loss that is only evaluated."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Generator, Tensor

from captum_meta._random import row_keys
from captum_meta.optim.truncated import with_gradients

_LARGEST = 1.0
"""Largest difference of a task's losses that counts, so that a single one does not outweigh all others."""


@torch.no_grad()
def evolved(loss: Callable[[], Tensor], parameters: Sequence[Tensor], pairs: int = 4, sigma: float = 0.15) -> Tensor:
    r"""The mean loss, with an antithetic estimate of its gradient (Salimans et al. 2017).

    .. math:: \nabla L \approx \frac{1}{2 N \sigma} \sum_{i=1}^N
        \big[\ell(\theta + \sigma \epsilon_i) - \ell(\theta - \sigma \epsilon_i)\big]\, \epsilon_i

    with standard normal epsilon that follow from theta, so that all chunks of a step draw the same. A loop of many steps can
    so be learned where to backpropagate through it would explode; the noise grows with the number of parameters.

    Args:
        loss: reads the parameters as they are; losses ``(T,)`` of T tasks.
        parameters: theta; inside they are changed, and afterwards what they were.
        pairs: N.
        sigma: standard deviation of the perturbations.

    >>> theta = torch.tensor([3.0], requires_grad=True)
    >>> evolved(lambda: 0.1 * theta.square(), [theta], pairs=1000).backward()
    >>> bool((theta.grad - 0.6).abs() < 0.1)
    True
    """
    here = [parameter.detach().clone() for parameter in parameters]
    gradients, losses = [torch.zeros_like(value) for value in here], []
    key = int(row_keys((torch.cat([value.reshape(-1) for value in here]).unsqueeze(0).cpu(),))[0])
    generator = Generator().manual_seed(key)
    try:
        for _ in range(pairs):
            noise = [torch.randn(value.shape, generator=generator).to(value) for value in here]
            both = [_moved(loss, parameters, here, noise, sign * sigma) for sign in (1, -1)]
            slope = (both[0] - both[1]).clamp(-_LARGEST, _LARGEST).mean() / (2 * sigma * pairs)
            gradients = [value + slope * direction for value, direction in zip(gradients, noise, strict=True)]
            losses += both
    finally:
        _move(parameters, here)
    with torch.enable_grad():
        return with_gradients(torch.stack(losses).mean(), parameters, gradients)


def _moved(
    loss: Callable[[], Tensor], parameters: Sequence[Tensor], here: Sequence[Tensor], along: Sequence[Tensor], by: float
) -> Tensor:
    _move(parameters, [value + by * direction for value, direction in zip(here, along, strict=True)])
    return loss()


def _move(parameters: Sequence[Tensor], values: Sequence[Tensor]) -> None:
    for parameter, value in zip(parameters, values, strict=True):
        parameter.data.copy_(value)
