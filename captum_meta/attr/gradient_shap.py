"""Drop-in replacement for ``captum.attr.GradientShap``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum.attr import GradientShap
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta.attr._arguments import checked
from captum_meta.attr._draws import Draws, samples_of
from captum_meta.attr._frontend import Frontend, Learner, count_examples, of_inputs
from captum_meta.attr._graph import drawn, refuse_with_graph
from captum_meta.attr._path import real
from captum_meta.evidence import Game, PathPlan
from captum_meta.nn.explainer import gap_shares

_DRAWS, _MOST_DRAWS = 5, 320
_NEXT = 100_003
"""Between the seeds of rounds."""


class MetaGradientShap(Frontend, GradientShap):
    """Expected gradients over a distribution of baselines, with stratified points and a completed answer.

    Draw j of ``n_samples`` takes a baseline, adds noise to the input and differentiates at a random point of the j-th part
    of the path between them, so the draws cover the path evenly. The mean misses the change of f by a gap that is known
    from f itself, and is shared out by the size of the attributions. A row costs ``n_samples`` gradients and an evaluation;
    the baselines are evaluated besides.

    Args:
        forward_func: the model, as in Captum.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, or a path, which shares out the
            gap in place of the attributions' size. That takes several times as long, and gains nothing on most models.

    Reference: Erion et al., *Improving performance of deep learning models with axiomatic attribution priors and expected
    gradients*, Nature Machine Intelligence 2021.

    >>> import torch
    >>> MetaGradientShap(lambda x: x.sum(1)).attribute(torch.ones(1, 3), torch.zeros(4, 3))
    tensor([[1., 1., 1.]])
    """

    kind = "path"

    def __init__(
        self, forward_func: Callable[..., Any], multiply_by_inputs: bool = True, *, learner: Learner = None
    ) -> None:
        GradientShap.__init__(self, forward_func, multiply_by_inputs)
        self._set_learner(learner)
        self._learned = learner is not None

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: Any,
        n_samples: int | None = None,
        stdevs: float | tuple[float, ...] = 0.0,
        target: TargetType = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        *,
        tolerance: float | None = None,
        return_error_estimate: bool = False,
        seed: int = 0,
        create_graph: bool = False,
    ) -> (
        TensorOrTupleOfTensorsGeneric
        | tuple[TensorOrTupleOfTensorsGeneric, Tensor]
        | tuple[TensorOrTupleOfTensorsGeneric, Tensor, Tensor]
    ):
        """Explain rows; arguments as in ``captum.attr.GradientShap.attribute``, and those behind the star.

        Args:
            inputs, baselines, stdevs, target, additional_forward_args: as in Captum; baselines are a distribution, or a
                function that gives one.
            n_samples: draws per row, each a gradient; 5 by default, as in Captum.
            return_convergence_delta: also return, for each draw, the sum of its attributions minus the change of f.
            tolerance: draws are made in rounds, each as large as all before, and a row stops as soon as its error estimate
                is at most this; ``n_samples`` (by default 320) is then the most draws of a row.
            return_error_estimate: also return, for each row, the relative squared error that nine in ten rows stay below,
                from the spread of its draws; NaN for one draw.
            seed: of the draws; a row's draws depend on it and on the row alone.
            create_graph: attributions carry a gradient to the model's parameters, so that a loss of them can train it.

        Returns:
            Attributions in the shapes of the inputs, then, if asked for, the deltas ``(B * n,)`` of the n draws of each row
            (with a tolerance n is the largest number, and NaN stands for draws that were not made), and the estimates
            ``(B,)``.
        """
        is_tuple = _captum.is_tuple(inputs)
        if n_samples == 0:
            raise ValueError("n_samples must be positive, got 0: each draw of a row is one of its gradients.")
        given = (inputs, baselines, stdevs, target, additional_forward_args)
        if create_graph:
            refuse_with_graph(
                tolerance=tolerance,
                return_error_estimate=return_error_estimate,
                return_convergence_delta=return_convergence_delta,
            )
            drawn_from = distribution_of(self.forward_func, *given)
            values = drawn(*drawn_from, n_samples or _DRAWS, seed, self.multiplies_by_inputs)
            return _captum.format_output(is_tuple, of_inputs(values, drawn_from[0]))
        if tolerance is None:
            draws = self._draws(*given, n_samples or _DRAWS, seed)
            game, values = draws.game, self._answer(draws)
            deltas = draws.deltas(self.multiplies_by_inputs) if return_convergence_delta else None
            estimates = draws.error(values, self.multiplies_by_inputs) if return_error_estimate else None
        else:
            limit = n_samples or _MOST_DRAWS
            draws = self._draws(*given, min(_DRAWS, limit), seed)
            game = draws.game
            values, deltas, estimates = self._in_rounds(draws, limit, tolerance, seed)
        attributions = _captum.format_output(is_tuple, of_inputs(values, game))
        asked = [deltas.flatten()] if return_convergence_delta and deltas is not None else []
        asked += [estimates] if return_error_estimate and estimates is not None else []
        return (attributions, *asked) if asked else attributions

    def _in_rounds(self, draws: Draws, limit: int, tolerance: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Attributions ``(B, M)``, deltas ``(B, n)`` and estimates ``(B,)``; each round draws as much as all before."""
        game, count, multiply = draws.game, draws.game.n_examples, self.multiplies_by_inputs
        game.at(torch.ones(1))  # which finds out whether rows may stop one by one
        values, rows, turn = torch.zeros_like(draws.expected), torch.arange(count, device=game.device), 0
        estimates, deltas = values.new_zeros(count), values.new_full((count, limit), torch.nan)
        while True:
            found = self._answer(draws)
            values[rows], estimates[rows] = found.to(values), draws.error(found, multiply).to(estimates)
            deltas[rows, : draws.n_samples] = draws.deltas(multiply).to(deltas)
            going = ~(estimates[rows] <= tolerance) & (draws.n_samples < limit)
            if not bool(going.any()):
                return values, deltas[:, : int(deltas.isfinite().any(0).sum())], estimates
            if not game.together:
                rows, draws = rows[going], draws.of_rows(going.nonzero().flatten())
            turn += 1
            draws = draws.joined(draws.again(min(draws.n_samples, limit - draws.n_samples), seed + _NEXT * turn))

    def _answer(self, draws: Draws) -> Tensor:
        """Attributions ``(R, M)``."""
        if not self.multiplies_by_inputs:
            return draws.average_gradient()
        if self._learned:
            return self._explain(draws.evidence(), PathPlan(draws.n_samples)).attributions
        values, total = draws.expected_gradients()
        return values + (total - values.sum(1)).unsqueeze(1) * gap_shares(values.abs(), draws.game.mask)

    def _draws(self, inputs: Any, baselines: Any, stdevs: Any, target: Any, extra: Any, n_samples: int, seed: int) -> Draws:
        game, distribution, noise = distribution_of(self.forward_func, inputs, baselines, stdevs, target, extra)
        return Draws.made(game, distribution, noise, n_samples, seed)

    def _game(self, inputs: Any, baselines: Any, *rest: Any) -> Game:
        raise NotImplementedError(
            "MetaGradientShap does not adapt: its evidence depends on the baselines drawn. "
            "Adapt MetaIntegratedGradients instead."
        )


def distribution_of(
    forward_func: Callable[..., Any], inputs: Any, baselines: Any, stdevs: Any, target: Any, extra: Any
) -> tuple[Game, tuple[Tensor, ...], tuple[float, ...]]:
    """The game of the inputs, and for each input the baselines that are drawn from and the size of the noise."""
    count_examples(inputs)
    given = _captum.format_callable_baseline(baselines, inputs)
    assert isinstance(given[0], Tensor), (
        f"Baselines distribution has to be provided in a form of a torch.Tensor, got {type(given[0])}."
    )
    formatted = real(_captum.format_input_baseline(inputs, None)[0])
    noise = stdevs if isinstance(stdevs, tuple) else (stdevs,) * len(formatted)
    assert len(given) == len(noise) == len(formatted), (
        f"There are {len(given)} baselines and {len(noise)} stdevs for {len(formatted)} inputs: pass one for each input."
    )
    distribution = tuple(samples_of(part, x) for part, x in zip(given, formatted, strict=True))
    return Game(forward_func, formatted, None, target, extra), distribution, noise
