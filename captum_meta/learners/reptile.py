"""Reptile."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.learners.maml import MAML
from captum_meta.optim import FirstOrder
from captum_meta.types import Explanations, ExplanationTask


class Reptile(MAML):
    r"""The initialisation moves towards what the inner loops arrive at (Nichol et al. 2018).

    .. math:: \theta_0 \leftarrow \theta_0 - \epsilon \frac1T \sum_t (\theta_0 - \theta_{S,t})

    The inner loops of training see the rows of both sets. Nothing is differentiated twice, and neither the rates nor
    parameters that are not fast are learned.

    Args: those of :class:`~captum_meta.learners.GradientLearner`; ``hypergradient``, ``zero_shot`` and ``outer_loss``
        change nothing.
    """

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """Half the squared distance of the inner loops' ends, mean over tasks: its gradient is Reptile's update."""
        self.require_rows(tasks.support)
        n_batch = tasks.support.attributions.dim() - 2
        parts = [rows.without_coalitions().flattened(n_batch) for rows in (tasks.support, tasks.query)]
        start = self.start(len(parts[0].attributions))
        rows = Explanations.concatenate(parts, dim=1)
        with torch.no_grad():
            hidden = self._support_hidden(rows.evidence)
        ends = FirstOrder().solve(self.problem(rows, start, hidden=hidden), start)
        ways = [self.explainer.get_parameter(name) - end.detach() for name, end in ends.items()]
        return torch.stack([way.square().sum() / (2 * len(way)) for way in ways]).sum()
