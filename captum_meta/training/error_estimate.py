"""The head behind Shapley error estimates as a learner: `captum-meta fit --config shapley-error-estimate`.

From the numbers of :meth:`captum_meta.nn.ShapleyExplainer.error_numbers`, :class:`captum_meta.nn.ErrorHead` learns what nine
in ten of the logarithms of the rows' relative squared errors stay below, and the order of a model's rows.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from captum_meta.learners import ZeroShot
from captum_meta.nn import ErrorHead, Explainer, ShapleyExplainer
from captum_meta.training.error_tasks import multiple_of
from captum_meta.types import Explanations, ExplanationTask

_LEVEL = 0.9
_FLOOR = 1e-9
"""Added to errors before their logarithms."""


@dataclass(frozen=True)
class Lesson:
    """Rows of models of one batch at one budget.

    Attributes:
        multiple: coalitions over players.
        players, rows, mask: the head's inputs, ``(T, N, M, P)``, ``(T, N, R)`` and ``(T, N, M)``.
        errors: ``(T, N)``, logarithms of the true relative squared errors.
        known: ``(T, N)`` bool, False where all Shapley values are zero.
    """

    multiple: int
    players: Tensor
    rows: Tensor
    mask: Tensor
    errors: Tensor
    known: Tensor

    def estimated(self, head: ErrorHead) -> Tensor:
        """The head's log errors, ``(T, N)``."""
        answer: Tensor = head(self.players, self.rows, self.mask)
        return answer


@torch.no_grad()
def lesson(explainer: ShapleyExplainer, explained: Explanations) -> Lesson:
    """Inputs and targets of the head from explanations ``(T, N, M)``."""
    evidence, right = explained.evidence, explained.attributions
    size = right.square().sum(-1)
    answer, players, rows = explainer.numbered(explainer.prior(evidence), evidence)
    values = answer.attributions
    finite = players.isfinite().flatten(2).all(-1) & rows.isfinite().all(-1)
    known = (size > 0) & values.any(-1) & finite
    players, rows = (part.nan_to_num(0.0, 0.0, 0.0) for part in (players, rows))
    errors = torch.where(known, (values - right).square().sum(-1) / torch.where(known, size, 1.0), 1.0)
    return Lesson(multiple_of(evidence), players, rows, evidence.players, (errors + _FLOOR).log(), known)


def loss(estimates: Tensor, errors: Tensor, known: Tensor) -> Tensor:
    """The quantile's pinball loss (Koenker and Bassett 1978), plus a penalty of wrongly ordered rows of a model.

    ``estimates``, ``errors`` and ``known`` are ``(T, N)``, the first two logarithms.
    """
    beyond = errors - estimates
    pinball = torch.maximum(_LEVEL * beyond, (_LEVEL - 1) * beyond)[known].sum() / known.sum().clamp(min=1)
    order = (errors.unsqueeze(-1) - errors.unsqueeze(-2)).sign()
    both = known.unsqueeze(-1) & known.unsqueeze(-2)
    ranked = functional.softplus(-order * (estimates.unsqueeze(-1) - estimates.unsqueeze(-2)))
    return pinball + 0.3 * ranked[both].sum() / both.sum().clamp(min=1)


class EstimatedErrors(ZeroShot):
    """The zero-shot explainer with a head that learns its errors; the explainer stays as it is.

    Numbers of rows and errors want double precision (``precision="64-true"``): the posterior's variances are differences.

    Args:
        explainer: whose errors are learned.
        width: of the head's hidden layers.

    Raises:
        ValueError: if the explainer does not predict Shapley values.
    """

    explainer: ShapleyExplainer

    def __init__(self, explainer: Explainer, width: int = 24) -> None:
        if not isinstance(explainer, ShapleyExplainer):
            raise ValueError(f"Errors of Shapley values are learned, and not of a {type(explainer).__name__}'s answers.")
        super().__init__(explainer.requires_grad_(False))
        self.head = ErrorHead(width)

    def loss(self, tasks: ExplanationTask) -> Float[Tensor, ""]:
        """Of the query rows at the budget at which they were measured."""
        one = lesson(self.explainer, tasks.query)
        return loss(one.estimated(self.head), one.errors, one.known)
