"""Any Captum method as teacher."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import check_teacher, checked
from captum_meta.attr._frontend import Frontend, Learner, count_examples, of_inputs
from captum_meta.evidence import ShapleyPlan
from captum_meta.learners import Ridge
from captum_meta.nn import EvidenceExplainer


class MetaAttribution(Frontend, Attribution):
    """Learns to predict any Captum method on one model, from rows that this method explained.

    No explainer is shipped for teachers besides Shapley values and path integrals (use :class:`MetaKernelShap` and
    :class:`MetaIntegratedGradients` for those), so :meth:`adapt` comes first; the teacher explains its rows.

    Args:
        forward_func: the model, as in Captum.
        teacher: a Captum method over the same model, such as ``FeatureAblation(model)``.
        learner: a :class:`~captum_meta.learners.MetaLearner` of kind ``"general"``, or the path of a saved one; by default
            ridge regression.

    >>> import torch
    >>> from captum.attr import FeatureAblation
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> x = torch.arange(24.0).reshape(8, 3).sin()
    >>> attr = MetaAttribution(model, FeatureAblation(model)).adapt(x)
    >>> torch.allclose(attr.attribute(x), FeatureAblation(model).attribute(x), atol=0.1)
    True
    """

    kind = "general"

    def __init__(self, forward_func: Callable[..., Any], teacher: Attribution, learner: Learner = None) -> None:
        Attribution.__init__(self, forward_func)
        self.teacher = check_teacher("teacher", teacher)
        self._set_learner(Ridge(EvidenceExplainer()) if learner is None else learner)

    def adapt(self, inputs: Any, *arguments: Any, attributions: Any = None, teacher: Any = None, **others: Any) -> Any:
        """As for all front ends; without ``attributions`` the teacher explains the rows."""
        if attributions is None and teacher is None:
            teacher = self.teacher
        return super().adapt(inputs, *arguments, attributions=attributions, teacher=teacher, **others)

    @log_usage()
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        *,
        n_samples: int | None = None,
    ) -> TensorOrTupleOfTensorsGeneric:
        """Predict the teacher's attributions; ``n_samples`` coalitions per row are evaluated, by default 2M if M <= 256.

        Raises:
            RuntimeError: before the first :meth:`adapt`.
        """
        if self._support.empty:
            raise RuntimeError(
                f"No explainer is shipped for {type(self.teacher).__name__}: call adapt(rows) first, "
                "so that it can be learned from a few rows that the teacher explains."
            )
        is_tuple = _captum.is_tuple(inputs)
        count_examples(inputs)
        game = self._game(inputs, baselines, target, additional_forward_args, feature_mask)
        plan = self._plan(n_samples)
        values = self._explain(plan.measure(game), plan).attributions
        return _captum.format_output(is_tuple, of_inputs(values, game))

    def _plan(self, n_samples: int | None = None) -> ShapleyPlan:
        return ShapleyPlan(n_samples, reading=self._learner.read.reading)
