"""Any Captum method as teacher."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from captum.attr import Attribution
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import check_teacher, checked
from captum_meta.attr._frontend import Frontend, Learner, count_examples, of_inputs
from captum_meta.evidence import Game, measure_shapley
from captum_meta.learners import Ridge
from captum_meta.nn import EvidenceExplainer
from captum_meta.types import Evidence


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
        values = self._explain(measure_shapley(game, n_samples), n_samples).attributions
        return _captum.format_output(is_tuple, of_inputs(values, game))

    def _default_key(self, game: Game) -> Hashable:
        return None

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        assert key is None or isinstance(key, int)
        return measure_shapley(game, key)

    def _reference(self, game: Game) -> Tensor:
        raise AssertionError("the teacher explains")
