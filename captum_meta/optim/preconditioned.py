"""Any update rule, with learned factors of each element's steps."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from captum_meta.optim.rules import UpdateRule


class Preconditioned(UpdateRule):
    r"""Another rule, each element of whose steps is scaled by a learned positive factor.

    .. math:: \theta_{s+1} = \theta_s + e^{10 \rho} \circ (U(\theta_s, \nabla, m) - \theta_s)

    What Meta-SGD (Li et al. 2017) learns over gradient descent, over any rule U: which elements may move far on a few rows
    and which should stay is learned from other tasks. With rho = 0, as before training, it is the rule itself.

    Args:
        rule: computes the step; its memory is independent of the factors.
        shapes: of the tensors without the dimension of tasks, by name.
    """

    def __init__(self, rule: UpdateRule, shapes: Mapping[str, torch.Size]) -> None:
        super().__init__()
        self.rule, self.names = rule, list(shapes)
        self.log_factors = nn.ParameterList([nn.Parameter(torch.zeros(shape)) for shape in shapes.values()])

    def initial_memory(self, parameters: dict[str, Tensor]) -> dict[str, Tensor]:
        return self.rule.initial_memory(parameters)

    def update(
        self, step: int, parameters: dict[str, Tensor], gradients: dict[str, Tensor], memory: dict[str, Tensor]
    ) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        moved, memory = self.rule.update(step, parameters, gradients, memory)
        factors = dict(zip(self.names, self.log_factors, strict=True))
        stretched = {n: value + (10 * factors[n]).exp() * (moved[n] - value) for n, value in parameters.items()}
        return stretched, memory
