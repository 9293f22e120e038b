"""Agreement of two attributions of the same rows."""

from __future__ import annotations

from captum_meta import functional
from captum_meta.metrics.base import ReferenceMetric


class TopKAgreement(ReferenceMetric):
    """Share of the ``k`` strongest players on which two attributions agree. Range: [0, 1]; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.top_k_agreement`.

    >>> import torch
    >>> metric = TopKAgreement(k=2, kind="sign")
    >>> metric(torch.tensor([[3.0, -2.0, 0.1]]), torch.tensor([[2.0, 3.0, 0.0]]))
    tensor(0.5000)
    """

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = 0.0, 1.0
    _score = staticmethod(functional.top_k_agreement)


class RankCorrelation(ReferenceMetric):
    """Spearman's correlation of two attributions over each row's players. Range: [-1, 1]; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.rank_correlation`.

    >>> import torch
    >>> metric = RankCorrelation()
    >>> metric(torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.0, 5.0, 9.0]]))
    tensor(1.)
    """

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = -1.0, 1.0
    _score = staticmethod(functional.rank_correlation)
