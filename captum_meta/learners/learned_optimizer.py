"""The learned optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from captum_meta.learners._config import HypergradientArgument, LossArgument
from captum_meta.learners._gradient import GradientLearner
from captum_meta.losses import relative_squared_error, scaled_squared_error
from captum_meta.nn import Explainer
from captum_meta.optim import CoordinatewiseLSTM, CoordinatewiseMLP, Preconditioned, Truncated

_RULES = {"mlp": CoordinatewiseMLP, "lstm": CoordinatewiseLSTM}


class LearnedOptimizer(GradientLearner):
    r"""Gradient steps whose rule is a network, learned over many explained models.

    .. math:: \theta_{s+1}, m_{s+1} = U_\phi(\theta_s, \nabla L_{support}(\theta_s), m_s), \qquad
        \min_\phi \sum_{tasks} \frac1W \sum_{w=1}^W L_{query}(\theta_{w})

    with theta_w where each window of the loop ends. The same rule moves every weight, so it may take more steps than it
    was trained for; how far each weight is then moved is learned too (:class:`captum_meta.optim.Preconditioned`).

    Args:
        explainer: the network that adapts.
        fast: names of the parameters that adapt, as patterns; all by default.
        steps: of the inner loop.
        rule: ``"mlp"``, :class:`captum_meta.optim.CoordinatewiseMLP`, or ``"lstm"``,
            :class:`captum_meta.optim.CoordinatewiseLSTM`.
        rate: from which each tensor's rate is learned, relative to its root mean square.
        hypergradient: how training differentiates the inner loop: windows of five steps by default;
            :class:`captum_meta.optim.PersistentES` for very long ones.
        inner_loss: what the inner loop minimises; a callable of (predicted, reference, variance).
        zero_shot: weight of the loss before adaptation in meta-training.
        outer_loss: what meta-training minimises, of the query rows; given as ``inner_loss``.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("*",),
        steps: int = 20,
        rule: Literal["mlp", "lstm"] = "mlp",
        rate: float = 0.01,
        hypergradient: HypergradientArgument = None,
        inner_loss: LossArgument = scaled_squared_error,
        zero_shot: float = 0.0,
        outer_loss: LossArgument = relative_squared_error,
    ) -> None:
        super().__init__(
            explainer,
            fast,
            steps,
            lambda values: Preconditioned(_RULES[rule](list(values), rate=rate), {n: v.shape for n, v in values.items()}),
            hypergradient or Truncated(5),
            inner_loss,
            zero_shot,
            outer_loss,
        )
        self.rule_name = rule

    def arguments(self) -> dict[str, object]:
        return {**super().arguments(), "rule": self.rule_name}
