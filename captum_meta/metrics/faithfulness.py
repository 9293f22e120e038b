"""Whether attributions add up to what the model's output does."""

from __future__ import annotations

from captum_meta import functional
from captum_meta.metrics.base import ModelMetric


class CompletenessError(ModelMetric):
    r"""Gap between the attributions' sum and the output's change. Range: :math:`[0, \infty)`; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.completeness_error`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0]])
    >>> CompletenessError(lambda x: x.sum(1))(attributions=x - 1, inputs=x)
    tensor(2.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.completeness_error)


class Infidelity(ModelMetric):
    r"""Squared gap between attributions and output under perturbations. Range: :math:`[0, \infty)`; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.infidelity`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0]])
    >>> Infidelity(lambda x: x.sum(1))(attributions=x, inputs=x)
    tensor(0.)
    """

    higher_is_better = False
    plot_lower_bound = 0.0
    _score = staticmethod(functional.infidelity)


class FaithfulnessCorrelation(ModelMetric):
    """Correlation of removed attributions with the output's fall. Range: [-1, 1]; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.faithfulness_correlation`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0, 2.0]])
    >>> FaithfulnessCorrelation(lambda x: x.sum(1))(attributions=x, inputs=x)
    tensor(1.)
    """

    higher_is_better = True
    plot_lower_bound, plot_upper_bound = -1.0, 1.0
    _score = staticmethod(functional.faithfulness_correlation)
