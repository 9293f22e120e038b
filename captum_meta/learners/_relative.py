"""The training loss of learners that correct the zero-shot explanation."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.learners.base import MetaLearner
from captum_meta.losses import relative_errors
from captum_meta.types import ExplanationTask

_FLOOR = 5e-4


def loss_against_zero_shot(learner: MetaLearner, tasks: ExplanationTask) -> Float[Tensor, ""]:
    r"""Log ratio of the adapted to the zero-shot error, with increases weighted more than decreases.

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
