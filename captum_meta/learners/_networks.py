"""What a stacking is trained for: its base, and the descent of its networks."""

from __future__ import annotations

from typing import TYPE_CHECKING

from jaxtyping import Float
from torch import Tensor

from captum_meta.learners._relative import loss_against_zero_shot
from captum_meta.losses import relative_errors
from captum_meta.optim.evolution import evolved
from captum_meta.types import ExplanationTask

if TYPE_CHECKING:
    from captum_meta.learners.stacking import Stacking

_FLOOR, _WORST = 3e-3, 10.0


def stacking_loss(learner: Stacking, tasks: ExplanationTask) -> Float[Tensor, ""]:
    """Of the base, how much worse than zero-shot the adapted explanations are; of the descent the networks' errors.

    Each counts where it has parameters that are trained. Where backpropagation through the descent's steps was tried, it
    exploded: its gradient is estimated by evolution strategies.

    Raises:
        ValueError: if nothing but the descent is trained, and the support rows tell the networks nothing.
    """
    descent = [value for value in learner.surrogate.parameters() if value.requires_grad]
    evidence = tasks.support.evidence
    told = evidence.coalitions is not None and evidence.elements is not None
    losses = []
    if any(value.requires_grad for value in learner.base.parameters()):
        losses.append(loss_against_zero_shot(learner, tasks))
    if descent and told:
        losses.append(evolved(lambda: log_errors(learner, tasks), descent))
    if not losses:
        raise ValueError(
            "Only the descent of the networks is trained, which learn from coalitions and elements of the support rows, but "
            "the tasks have none: take captum_meta.tasks.DistillationTaskFamily with augment=False, and 2 support rows or "
            "more."
        )
    return sum(losses[1:], start=losses[0])


def log_errors(learner: Stacking, tasks: ExplanationTask) -> Float[Tensor, " T"]:
    """Logarithms of the relative squared errors of the networks' Shapley values for the query rows, ``(T,)``."""
    query = tasks.query
    found = learner.distilled_values(learner.distil(tasks.support), query.evidence)
    errors = relative_errors(found, query.attributions, query.variance)
    return (errors.nan_to_num(_WORST, _WORST).clamp(max=_WORST) + _FLOOR).log()
