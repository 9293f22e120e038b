"""What the model's output does as the players go, or come, in the order of their attributions."""

from __future__ import annotations

from captum_meta import functional
from captum_meta.metrics.base import ModelMetric


class DeletionAUC(ModelMetric):
    """Area under the output while players go, greatest attribution first. Range: the output's; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.deletion_auc`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 0.0]])
    >>> DeletionAUC(lambda x: x.sum(1))(attributions=x, inputs=x)
    tensor(1.)
    """

    higher_is_better = False
    _score = staticmethod(functional.deletion_auc)


class InsertionAUC(ModelMetric):
    """Area under the output while players come, greatest attribution first. Range: the output's; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.insertion_auc`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 0.0]])
    >>> InsertionAUC(lambda x: x.sum(1))(attributions=x, inputs=x)
    tensor(3.)
    """

    higher_is_better = True
    _score = staticmethod(functional.insertion_auc)


class Comprehensiveness(ModelMetric):
    """Fall of the output without the strongest players. Range: differences of outputs; higher is better.

    Formula, arguments and reference: :func:`captum_meta.functional.comprehensiveness`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0]])
    >>> Comprehensiveness(lambda x: x.sum(1), fractions=[0.5])(attributions=x, inputs=x)
    tensor(4.)
    """

    higher_is_better = True
    _score = staticmethod(functional.comprehensiveness)


class Sufficiency(ModelMetric):
    """Fall of the output with the strongest players alone. Range: differences of outputs; lower is better.

    Formula, arguments and reference: :func:`captum_meta.functional.sufficiency`.

    >>> import torch
    >>> x = torch.tensor([[4.0, 1.0]])
    >>> Sufficiency(lambda x: x.sum(1), fractions=[0.5])(attributions=x, inputs=x)
    tensor(1.)
    """

    higher_is_better = False
    _score = staticmethod(functional.sufficiency)
