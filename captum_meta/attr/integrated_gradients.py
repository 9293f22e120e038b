"""Drop-in replacement for ``captum.attr.IntegratedGradients``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from captum.attr import IntegratedGradients
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import BaselineType, TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._expected_gradients import expected_gradients
from captum_meta.attr._frontend import Learner, count_examples, of_inputs
from captum_meta.attr._graph import (
    STEPS,
    carry_gradient,
    differences,
    filled,
    integrated,
    refuse_with_graph,
)
from captum_meta.attr._path import PathFrontend, PathResult, real
from captum_meta.attr._selection import check_background_alone, selection
from captum_meta.evidence.path_rounds import MOST
from captum_meta.games import Game, MeanGame, each_output
from captum_meta.games.differentiated import Differentiated
from captum_meta.types import Evidence


class MetaIntegratedGradients(PathFrontend, IntegratedGradients):
    """Integrated Gradients from a few gradients, corrected by the model's values along the path.

    By default gradients are spent in rounds, on the rows that need them and where their paths bend, until a row is as exact
    as Captum's 50 gradients would make it: 8 where the path is smooth, 20 to 40 where it has many kinks. Every row costs two
    evaluations besides, f at the ends of the path.

    With ``n_steps`` given, a row costs so many gradients and three evaluations, f at the ends and halfway, which tells where
    along this row's path gradients are worth most; the meta-learned explainer shares out what their quadrature misses.
    Where it misses 5 % of what f changes by, seven more evaluations check whether the gradients are those of f.

    Args:
        forward_func: the model, as in Captum.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

    Reference: Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017.

    >>> import torch
    >>> MetaIntegratedGradients(lambda x: x[:, 0] * x[:, 1]).attribute(torch.tensor([[2.0, 3.0]]), n_steps=3)
    tensor([[3., 3.]])
    """

    def __init__(
        self, forward_func: Callable[..., Any], multiply_by_inputs: bool = True, *, learner: Learner = None
    ) -> None:
        IntegratedGradients.__init__(self, forward_func, multiply_by_inputs)
        self._set_learner(learner)

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: BaselineType = None,
        target: TargetType = None,
        additional_forward_args: Any = None,
        n_steps: int | None = None,
        method: str = "gausslegendre",
        internal_batch_size: int | None = None,
        return_convergence_delta: bool = False,
        *,
        background: TensorOrTupleOfTensorsGeneric | None = None,
        outputs: Literal["all"] | Sequence[int] | None = None,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        seed: int = 0,
        create_graph: bool = False,
    ) -> (
        TensorOrTupleOfTensorsGeneric
        | tuple[TensorOrTupleOfTensorsGeneric, Tensor]
        | tuple[TensorOrTupleOfTensorsGeneric, Tensor, Tensor]
    ):
        """Explain rows; arguments as in ``captum.attr.IntegratedGradients.attribute`` but for these.

        Args:
            inputs, baselines, target, additional_forward_args, method: as in Captum.
            n_steps: gradients per row. None: as many as each row needs to be as exact as Captum's 50, in rounds, and 50 at
                most. With a number, ``method="gausslegendre"`` places 2 to 32 of them for each row
                (:func:`~captum_meta.estimators.path_nodes`); one, more, and the other methods (50 by default) take Captum's
                own points.
            internal_batch_size: rows of the model differentiated at once, at most. None: a number is chosen.
            return_convergence_delta: also return, for each row, the sum of the attributions minus f(input) - f(baseline).
            background: for each input rows ``(K, *features)``, in place of ``baselines``: expected gradients, the mean over
                these rows of Integrated Gradients from each of them. ``n_steps`` (50 by default) counts the gradients of an
                input, whatever K is; each of the inputs and background rows costs one evaluation besides. Attributions sum
                to f(input) less the mean of f over the background.
            outputs: "all", or a list of indices, in place of ``target``: several outputs, each with gradients of its own,
                from the same forwards where all of them are differentiated at the same points of the path: with background
                rows, in the first of the rounds, and with one step or more than 32.
            tolerance: a row stops as soon as its error estimate is at most this; ``n_steps`` (by default 50, for each
                background row if there are several) is then the most gradients that it may cost.
            return_error_estimate: also return, for each row, the relative squared error that nine in ten rows stay below;
                NaN for ``n_steps=1``.
            seed: of the background rows and points that are drawn where there are fewer than two gradients for each row.
            create_graph: attributions carry a gradient to the model's parameters as well as to the inputs, so that a loss of
                them can train it. Gradients are then taken at the ``n_steps`` points of ``method`` (8 by default), and what
                they miss of f's change is shared out by the size of the attributions, unless they are not those of f.

        Returns:
            Attributions in the shapes of the inputs, then the delta ``(B,)`` and the estimates ``(B,)``, if asked for. With
            ``outputs`` each has a dimension of them behind the first. As in Captum attributions carry a gradient through
            (input - baseline) where one of these requires it.

        Raises:
            AssertionError: for arguments that Captum refuses, for ``baselines`` beside ``background``, and for ``target``
                beside ``outputs``.
            ValueError: for ``method=`` with several background rows, for a tolerance that is not positive, and for what
                ``create_graph`` does not support.
        """
        is_tuple = _captum.is_tuple(inputs)
        count_examples(inputs)
        formatted, starts = _captum.format_input_baseline(inputs, baselines)
        _captum.validate_input(formatted, starts, n_steps or MOST, method)
        baselines = check_background_alone(baselines, background)
        rows = background if baselines is None else None
        multiply = self.multiplies_by_inputs
        if create_graph:
            refuse_with_graph(
                background=rows, outputs=outputs, tolerance=tolerance, return_error_estimate=return_error_estimate
            )
            extra = _captum.format_additional_forward_args(additional_forward_args) or ()
            model, ends = Differentiated(self.forward_func, target, extra), real(formatted)
            starts = _captum.format_input_baseline(inputs, baselines)[1]
            plain = self._game(inputs, baselines, target, additional_forward_args)
            parts, delta = integrated(plain, model, ends, filled(ends, starts), n_steps or STEPS, method, multiply)
            attributions = _captum.format_output(is_tuple, parts)
            return (attributions, delta) if return_convergence_delta else attributions
        if rows is not None and method != "gausslegendre":
            raise ValueError("With several background rows gradients are taken at points of our own: leave out method=.")

        arguments = (selection(target, outputs), additional_forward_args, None, internal_batch_size)
        game: Game | MeanGame
        if rows is not None:
            game = MeanGame(self.forward_func, real(inputs), rows, *arguments)
            results = self._of_background(game, n_steps, tolerance, seed)
        else:
            game = self._game(inputs, baselines, *arguments)
            begins = _captum.format_input_baseline(inputs, baselines)[1]
            attached = multiply and carry_gradient(*formatted, *begins)
            asked = (n_steps, method, tolerance, return_error_estimate, multiply and not attached)
            results = [self._integrate(one, *asked) for one in each_output(game)]
            if attached:
                apart = differences(formatted, begins)
                results = [found.times(apart) for found in results]
        found = PathResult.side_by_side(results, () if outputs is None else tuple(game.output_shape))
        attributions = _captum.format_output(is_tuple, found.parts)
        return found.returned(attributions, return_convergence_delta, return_error_estimate)

    def _of_background(self, game: MeanGame, n_steps: int | None, tolerance: float | None, seed: int) -> list[PathResult]:
        """Expected gradients over several background rows, of each output."""
        most = n_steps or (MOST if tolerance is None else MOST * game.count)

        def explain(evidence: Evidence) -> Tensor:
            return self._explain(evidence, self._plan(evidence.points.shape[1], "gausslegendre")).attributions

        found = expected_gradients(game, most, self.multiplies_by_inputs, seed, explain, tolerance)
        each = zip(*(part.unbind(1) for part in found), strict=True)
        return [PathResult(of_inputs(values, game), values.sum(1) - delta, error) for values, delta, error in each]
