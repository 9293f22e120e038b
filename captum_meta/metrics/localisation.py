"""Attributions against the features that are known to matter."""

from __future__ import annotations

from captum_meta import functional
from captum_meta.functional._arguments import Tensors
from captum_meta.metrics.base import ExplanationMetric


class _Localisation(ExplanationMetric):
    higher_is_better = True
    plot_lower_bound, plot_upper_bound = 0.0, 1.0

    def update(self, attributions: Tensors, relevant: Tensors, feature_mask: Tensors | None = None) -> None:
        """Add rows."""
        self._score_rows(attributions=attributions, relevant=relevant, feature_mask=feature_mask)


class PointingGame(_Localisation):
    """Whether the greatest attribution falls on a relevant feature. Range: [0, 1]; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.pointing_game`.

    >>> import torch
    >>> PointingGame()(torch.tensor([[0.1, 0.9]]), torch.tensor([[False, True]]))
    tensor(1.)
    """

    _score = staticmethod(functional.pointing_game)


class RelevanceRankAccuracy(_Localisation):
    """Share of the relevant features among as many of greatest attribution. Range: [0, 1]; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.relevance_rank_accuracy`.

    >>> import torch
    >>> RelevanceRankAccuracy()(torch.tensor([[0.1, 0.9, 0.8]]), torch.tensor([[1, 1, 0]]))
    tensor(0.5000)
    """

    _score = staticmethod(functional.relevance_rank_accuracy)
