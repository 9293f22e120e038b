"""Drop-in replacement for ``captum.attr.KernelShap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from captum.attr import KernelShap
from captum.log import log_usage
from torch import Tensor
from typing_extensions import Self

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import check_rows, checked
from captum_meta.attr._frontend import Learner, count_examples
from captum_meta.attr._memory import Memory
from captum_meta.attr._pair_budgets import affordable_pairs, default_pairs
from captum_meta.attr._recommendation import Recommendation, recommend
from captum_meta.attr._selection import rows_at_once, selection
from captum_meta.attr._shapley import ShapleyFrontend
from captum_meta.evidence.shapley import BORDER_PLAYERS
from captum_meta.games import MeanGame


class MetaKernelShap(ShapleyFrontend, KernelShap):
    """Shapley values of many rows at once, from three gradients and 2M coalitions per row.

    Every row costs three gradients (9 evaluations) and ``n_samples`` coalitions; from these the meta-learned
    explainer predicts the rest. A call costs up to nine evaluations more, to find out whether rows may be evaluated apart.
    The answer is exact where ``n_samples`` covers all coalitions.

    Args:
        forward_func: the model, as in Captum.
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.
        memory: the most explained rows that are kept to learn the model from; 0: each row is explained by itself. From 32
            rows on, networks are fitted to all that was evaluated of them, and a row is explained with the help of the one
            that has not seen it, as far as coalitions confirm it: the rows' own or, where these are the 2M of one player
            and of all but one, eight further ones of a few rows, up to 2 % of a call's evaluations, whenever networks were
            fitted. Beyond that it costs no evaluations of the model, but takes time. It pays where many rows of one model
            are explained: pass them in one call, or in few large ones. ``background`` has none. :meth:`reset` clears it.

    Reference: Lundberg and Lee, *A Unified Approach to Interpreting Model Predictions*, NeurIPS 2017.

    >>> import torch
    >>> model = lambda x: x[:, 0] * x[:, 1] + x[:, 2]
    >>> MetaKernelShap(model).attribute(torch.tensor([[2.0, 3.0, 1.0]])).round(decimals=3)
    tensor([[3., 3., 1.]])
    """

    def __init__(self, forward_func: Callable[..., Any], *, learner: Learner = None, memory: int = 0) -> None:
        KernelShap.__init__(self, forward_func)
        self._set_learner(learner)
        self.memory = check_rows("memory", memory)
        self._memory = Memory(self.memory) if self.memory else None

    def reset(self) -> Self:
        """Forget the support set, and all rows explained so far."""
        super().reset()
        self._memory = Memory(self.memory) if self.memory else None
        return self

    def recommend(self, rows: int, n_players: int, n_samples: int | None = None) -> Recommendation:
        """Which way explains many rows of this model best at equal total cost; nothing is evaluated.

        Ways are zero-shot, a support set (:meth:`adapt`), and memory. The rule is one of costs, from models of the training
        family: at 100 and 1,000 rows a support set costs more coalitions than it is worth, while rows that learn from
        others cost few (``captum-meta benchmark ways`` compares them on models held out). What is known of this model is
        used: once rows were explained with ``memory``, whether they learned anything from others; and once there are support
        rows, whether those left out were explained so much better that the support set pays (:attr:`adaptation`).

        Args:
            rows: to be explained in all.
            n_players: features or groups of each.
            n_samples: coalitions of each row, as for ``attribute``.

        >>> MetaKernelShap(len).recommend(1000, 12).way, MetaKernelShap(len).recommend(10, 12).way
        ('memory', 'zero-shot')
        """
        if rows < 1 or n_players < 1:
            raise ValueError(f"rows={rows} and n_players={n_players} must both be at least 1.")
        share, has_gradient = (None, True) if self._memory is None else (self._memory.share, self._memory.has_gradient)
        pays_after = None if self._support.empty else self.adaptation.pays_after
        default = 2 * n_players if n_players <= BORDER_PLAYERS else 0
        return recommend(rows, n_players, default if n_samples is None else n_samples, share, pays_after, has_gradient)

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        feature_mask: Tensor | tuple[Tensor, ...] | None = None,
        n_samples: int | None = None,
        perturbations_per_eval: int | None = None,
        return_input_shape: bool = True,
        show_progress: bool = False,
        *,
        background: TensorOrTupleOfTensorsGeneric | None = None,
        outputs: Literal["all"] | Sequence[int] | None = None,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        seed: int = 0,
    ) -> TensorOrTupleOfTensorsGeneric | tuple[TensorOrTupleOfTensorsGeneric, Tensor]:
        """Explain rows; arguments as in ``captum.attr.KernelShap.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, feature_mask, return_input_shape: as in Captum.
            n_samples: coalitions evaluated per row. None: the 2M of one player and of all but one, where M <= 256, else
                none, with a warning; 0: gradients only, and two coalitions for each player whose gradient vanishes. Rows of
                up to 16 players choose those beyond 8M by what they told so far, which takes longer.
            perturbations_per_eval: the most coalitions of all rows that are evaluated at once; None chooses.
            show_progress: show how many of the batches of coalitions have been evaluated.
            background: for each input rows ``(K, *features)``, in place of ``baselines``: Shapley values of the mean of the
                games that have one of them as baseline, which is what shap's explainers give. ``n_samples`` then counts
                pairs of a coalition and a background row (None: all where they are 2,048 at most, else 64M, at most 2,048,
                where M <= 256, else gradients alone, with a warning; 0: gradients at 8 background rows), beside one
                evaluation of each row and of each background row. After ``adapt`` with the same background fewer are needed.
            outputs: "all", or a list of indices, in place of ``target``: several outputs from the same evaluations, of which
                gradients alone are taken for each. Beyond 8M coalitions they choose together, and answers differ a little
                from those of one target.
            tolerance: stop spending on a row as soon as its error estimate is at most this; ``n_samples`` (by default 2,048,
                or all there are) is then the most that a row may cost.
            return_error_estimate: also return, for each row, the relative squared error that nine in ten rows stay below;
                0 where all coalitions were evaluated, NaN where fewer were than the 2M of one player
                and of all but one.
            seed: of the coalitions sampled, which have 2 to M - 2 of a row's M players.

        Returns:
            Attributions in the shapes of the inputs, a group's value on each of its elements; if not ``return_input_shape``
            ``(B, groups)``, a group's value in the column of its id, counted from the smallest. With ``outputs`` there
            is a dimension of them behind the first. With the estimates ``(B,)`` if asked for.
        """
        is_tuple = _captum.is_tuple(inputs)
        max_rows = rows_at_once(perturbations_per_eval, count_examples(inputs))
        label = f"{self.get_name()} attribution" if show_progress else None
        model_arguments = (selection(target, outputs), additional_forward_args, feature_mask, max_rows, label)
        game = self._mean_game(inputs, baselines, background, *model_arguments)
        plan = self._plan(n_samples, seed)
        if isinstance(game, MeanGame):
            meant = default_pairs(game) if n_samples is None else torch.full((game.n_rows,), n_samples)
            budgets = meant if n_samples is not None else affordable_pairs(game, meant, tolerance)
            values, bounds = self._predict_mean(game, budgets, tolerance, return_error_estimate, seed)
        elif tolerance is not None:
            values, bounds = self._predict_within(game, plan, tolerance)
        else:
            values, bounds = self._predict(game, plan, return_error_estimate)
        assert outputs is not None or len(values) == game.n_rows, (
            "The model has several outputs per row: pass target= to select one, or outputs='all' to explain all at once."
        )
        answers = (game.n_rows,) if outputs is None else game.answers
        attributions = self._shaped(game, values, answers, is_tuple, return_input_shape)
        return (attributions, bounds.reshape(answers)) if return_error_estimate else attributions
