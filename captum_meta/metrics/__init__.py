"""Metrics of attributions as ``torchmetrics.Metric`` classes over the functions of ``captum_meta.functional``.

The formulas and the arguments are in the functions' docstrings. In a ``MetricCollection`` pass ``update`` keywords:
each metric takes the ones it has. Explained models are held outside the module tree: they are not in ``state_dict``,
and ``to(device)`` does not move them.
"""

from captum_meta.metrics.agreement import RankCorrelation, TopKAgreement
from captum_meta.metrics.base import ExplanationMetric
from captum_meta.metrics.concentration import Complexity, Sparseness
from captum_meta.metrics.curves import Comprehensiveness, DeletionAUC, InsertionAUC, Sufficiency
from captum_meta.metrics.error import AttributionError
from captum_meta.metrics.faithfulness import CompletenessError, FaithfulnessCorrelation, Infidelity
from captum_meta.metrics.localisation import PointingGame, RelevanceRankAccuracy
from captum_meta.metrics.randomisation import ParameterRandomisation
from captum_meta.metrics.stability import LocalLipschitz, MaxSensitivity

__all__ = [
    "AttributionError",
    "CompletenessError",
    "Complexity",
    "Comprehensiveness",
    "DeletionAUC",
    "ExplanationMetric",
    "FaithfulnessCorrelation",
    "Infidelity",
    "InsertionAUC",
    "LocalLipschitz",
    "MaxSensitivity",
    "ParameterRandomisation",
    "PointingGame",
    "RankCorrelation",
    "RelevanceRankAccuracy",
    "Sparseness",
    "Sufficiency",
    "TopKAgreement",
]
