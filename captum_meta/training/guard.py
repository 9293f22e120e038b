"""Skips training steps whose loss or gradient is not finite."""

from __future__ import annotations

import warnings

from torch import Tensor, nn

_MOST_IN_A_ROW = 5


class FiniteSteps:
    """Counts skipped steps, and ends a run after several in a row.

    Attributes:
        left_out: steps left out so far.
    """

    def __init__(self) -> None:
        self.left_out = 0
        self._in_a_row = 0

    def admit(self, module: nn.Module, step: int) -> None:
        """Take the gradients away if one is not finite, so that an optimizer changes neither weights nor memory.

        After a backward pass through :func:`marked` a loss that was not finite has left no finite gradient. Ranks that
        average their gradients need not be asked: they have the same ones.

        Raises:
            RuntimeError: for the fifth step in a row.
        """
        gradients = {name: value.grad for name, value in module.named_parameters() if value.grad is not None}
        broken = [name for name, gradient in gradients.items() if not bool(gradient.isfinite().all())]
        if not broken:
            self._in_a_row = 0
            return
        self.left_out += 1
        self._in_a_row += 1
        which = f"the gradient of {broken[0]}" + (f" and {len(broken) - 1} more" if len(broken) > 1 else "")
        if self._in_a_row == _MOST_IN_A_ROW:
            raise RuntimeError(
                f"{_MOST_IN_A_ROW} steps in a row, up to step {step}, had no finite loss or gradient (last {which}); the "
                "weights are those before them. Lower the learning rate, clip gradients (gradient_clip_val=1.0), and see "
                "that the tasks' attributions and evidence are finite."
            )
        warnings.warn(f"Step {step} is left out: {which} is not finite.", stacklevel=3)
        for value in module.parameters():
            value.grad = None


def reaching(loss: Tensor, module: nn.Module) -> Tensor:
    """The same loss; where no parameter acts on it, as all answers are exact, with gradients of zero."""
    if loss.requires_grad:
        return loss
    return loss + sum(0 * value.sum() for value in module.parameters() if value.requires_grad)


def marked(loss: Tensor) -> Tensor:
    """The same loss; where it is not finite, its gradients are not either.

    >>> import torch
    >>> x = torch.zeros((), requires_grad=True)
    >>> torch.autograd.grad(marked(x + torch.inf), x)[0].isfinite().item(), torch.autograd.grad(marked(3 * x), x)[0].item()
    (False, 3.0)
    """
    return loss * (1 + 0 * loss.detach())
