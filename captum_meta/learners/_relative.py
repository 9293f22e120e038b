"""What learners that correct the zero-shot explanation are trained for."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.learners.base import MetaLearner
from captum_meta.losses import relative_errors
from captum_meta.types import ExplanationTask

_FLOOR = 5e-4


def loss_against_zero_shot(learner: MetaLearner, tasks: ExplanationTask) -> Float[Tensor, ""]:
    r"""How much worse than zero-shot the adapted explanations are, losses counted more than gains.

    .. math:: \frac1T \sum_t d_t + \tfrac12 \max(0, d_t), \qquad
        d_t = \log \frac{\epsilon + E_t(\text{adapted})}{\epsilon + E_t(\text{zero-shot})}

    with E the relative squared error of the query rows.
    """
    query = tasks.query
    adapted = learner.predict(learner.adapt(tasks.support), query.evidence)
    errors = relative_errors(adapted, query.attributions, query.variance)
    with torch.no_grad():
        zero_shot = learner.explainer(query.evidence).attributions
        start = relative_errors(zero_shot, query.attributions, query.variance)
    ratio = torch.log((errors + _FLOOR) / (start + _FLOOR))
    return (ratio + 0.5 * ratio.clamp(min=0)).mean()
