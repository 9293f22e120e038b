"""The learned optimizer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

from captum_meta.learners._gradient import GradientLearner
from captum_meta.nn import Explainer
from captum_meta.optim import (
    CoordinatewiseLSTM,
    CoordinatewiseMLP,
    Hypergradient,
    Preconditioned,
    Tensors,
    Truncated,
    UpdateRule,
)

_RULES = {"mlp": CoordinatewiseMLP, "lstm": CoordinatewiseLSTM}


class LearnedOptimizer(GradientLearner):
    r"""Gradient steps whose rule is a network, learned over many explained models.

    .. math:: \theta_{s+1}, m_{s+1} = U_\phi(\theta_s, \nabla L_{support}(\theta_s), m_s), \qquad
        \min_\phi \sum_{tasks} \frac1W \sum_{w=1}^W L_{query}(\theta_{w})

    with theta_w at the end of each window of the loop. The same rule moves every weight, so it may take more steps than it
    was trained for; how far each weight is then moved is learned too (:class:`captum_meta.optim.Preconditioned`).

    Args:
        explainer, fast, steps: as in :class:`~captum_meta.learners.GradientLearner`.
        rate: from which each tensor's rate is learned, relative to its root mean square.
        rule: ``"mlp"``, :class:`captum_meta.optim.CoordinatewiseMLP`, or ``"lstm"``,
            :class:`captum_meta.optim.CoordinatewiseLSTM`.
        clip: as in :class:`~captum_meta.learners.GradientLearner`; None by default.
        options: the further arguments of :class:`~captum_meta.learners.GradientLearner`. The hypergradient takes windows of
            five steps by default; :class:`captum_meta.optim.PersistentES` is for very long loops.
    """

    def __init__(
        self,
        explainer: Explainer,
        fast: Sequence[str] = ("*",),
        steps: int = 20,
        rate: float = 0.01,
        *,
        rule: Literal["mlp", "lstm"] = "mlp",
        clip: float | None = None,
        **options: Any,
    ) -> None:
        self.rule_name = rule
        super().__init__(explainer, fast, steps, rate, clip=clip, **options)

    def make_rule(self, parameters: Tensors, rate: float) -> UpdateRule:
        inner = _RULES[self.rule_name](list(parameters), rate=rate)
        return Preconditioned(inner, {name: value.shape for name, value in parameters.items()})

    def own_hypergradient(self) -> Hypergradient:
        return Truncated(5)

    def arguments(self) -> dict[str, object]:
        return {**super().arguments(), "rule": self.rule_name}
