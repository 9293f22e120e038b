"""Drop-in replacement for ``captum.attr.GradientShap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

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
from captum_meta.attr._incomplete import INCONSISTENT, UNKNOWN, warn_of_rows
from captum_meta.attr._path import real
from captum_meta.attr._selection import selection
from captum_meta.evidence import Game, PathPlan

_DRAWS, _MOST_DRAWS = 5, 320
_NEXT = 100_003
"""Distance between the seeds of rounds."""


class MetaGradientShap(Frontend, GradientShap):
    """Expected gradients over a distribution of baselines, from stratified draws.

    Draw j of ``n_samples`` takes a baseline, adds noise to the input and differentiates at a random point of the j-th part
    of the path between them, so the draws cover the path evenly. The mean misses the change of f by a gap that is known
    from f itself. What chance explains of it, at most half a standard error of the draws, is shared out by the size of the
    attributions; the rest may be due to jumps of f, which belong to no gradient. A row costs ``n_samples`` gradients and an
    evaluation; the baselines are evaluated besides.

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
        """Explain rows; arguments as in ``captum.attr.GradientShap.attribute``, and those behind the star.

        Args:
            inputs, baselines, stdevs, target, additional_forward_args: as in Captum; baselines are a distribution, or a
                function that gives one.
            n_samples: draws per row, each a gradient; 5 by default, as in Captum.
            return_convergence_delta: also return, for each draw, the sum of its attributions minus the change of f.
            outputs: "all", or a list of indices, in place of ``target``: several outputs from the same draws and forwards,
                each with gradients of its own.
            tolerance: draws are made in rounds, each as large as all before, and a row stops as soon as its error estimate
                is at most this; ``n_samples`` (by default 320) is then the most draws of a row.
            return_error_estimate: also return, for each row, the relative squared error that nine in ten rows stay below,
                from the spread of its draws; NaN for one draw.
            seed: of the draws; a row's draws depend on it and on the row alone.
            create_graph: attributions carry a gradient to the model's parameters, so that a loss of them can train it.

        Returns:
            Attributions in the shapes of the inputs, then, if asked for, the deltas ``(B * n,)`` of the n draws of each row
            (with a tolerance n is the largest number, and NaN stands for draws that were not made), and the estimates
            ``(B,)``. With ``outputs`` each has a dimension of them behind the first; a row's draws then end when all of its
            outputs are within the tolerance.

        Raises:
            AssertionError: for arguments that Captum refuses, and for ``target`` beside ``outputs``.
            ValueError: for ``n_samples=0``, and for what ``create_graph`` does not support.
        """
        is_tuple = _captum.is_tuple(inputs)
        if n_samples == 0:
            raise ValueError("n_samples must be positive, got 0: each draw of a row is one of its gradients.")
        given = (inputs, baselines, stdevs, selection(target, outputs), additional_forward_args)
        if create_graph:
            refuse_with_graph(
                outputs=outputs,
                tolerance=tolerance,
                return_error_estimate=return_error_estimate,
                return_convergence_delta=return_convergence_delta,
            )
            drawn_from = distribution_of(self.forward_func, *given)
            attached = real(_captum.format_input_baseline(inputs, None)[0])
            values = drawn(attached, *drawn_from, n_samples or _DRAWS, seed, self.multiplies_by_inputs)
            return _captum.format_output(is_tuple, of_inputs(values, drawn_from[0]))
        game, distribution, noise = distribution_of(self.forward_func, *given)
        most = n_samples or (_DRAWS if tolerance is None else _MOST_DRAWS)
        draws = Draws.made(game, distribution, noise, most if tolerance is None else min(_DRAWS, most), seed)
        if self.multiplies_by_inputs:
            _warn_of(draws)
        if tolerance is None:
            values = self._answers(draws)
        else:
            values, deltas, estimates = self._in_rounds(draws, most, tolerance, seed)
        shape = () if outputs is None else tuple(game.output_shape)
        parts = of_inputs(values.flatten(0, 1), game)
        shaped = tuple(part.reshape(game.n_examples, *shape, *part.shape[1:]) for part in parts)
        attributions = _captum.format_output(is_tuple, shaped)
        asked = []
        if return_convergence_delta:
            asked.append((self._deltas(draws) if tolerance is None else deltas).mT.reshape(-1, *shape))
        if return_error_estimate:
            asked.append((self._errors(draws, values) if tolerance is None else estimates).reshape(-1, *shape))
        return (attributions, *asked) if asked else attributions

    def _answers(self, draws: tuple[Draws, ...]) -> Tensor:
        """Attributions ``(R, O, M)``, from the draws of each output."""
        return torch.stack([self._answer(one) for one in draws], dim=1)

    def _deltas(self, draws: tuple[Draws, ...]) -> Tensor:
        """``(R, O, n)``."""
        return torch.stack([one.deltas(self.multiplies_by_inputs) for one in draws], dim=1)

    def _errors(self, draws: tuple[Draws, ...], values: Tensor) -> Tensor:
        """Estimates ``(R, O)`` of attributions ``(R, O, M)``."""
        each = zip(draws, values.unbind(1), strict=True)
        return torch.stack([one.error(found, self.multiplies_by_inputs) for one, found in each], dim=1)

    def _in_rounds(self, draws: tuple[Draws, ...], limit: int, tolerance: float, seed: int) -> tuple[Tensor, Tensor, Tensor]:
        """Attributions ``(B, O, M)``, deltas and estimates; each round draws as much as all before."""
        game, count, n_outputs = draws[0].game, draws[0].game.n_examples, len(draws)
        game.at(torch.ones(1))  # to find out whether rows may stop one by one
        values = draws[0].expected.new_zeros(count, n_outputs, draws[0].expected.shape[1])
        estimates, deltas = values.new_zeros(count, n_outputs), values.new_full((count, n_outputs, limit), torch.nan)
        rows, turn = torch.arange(count, device=game.device), 0
        while True:
            made = draws[0].n_samples
            found = self._answers(draws)
            values[rows], estimates[rows] = found.to(values), self._errors(draws, found).to(estimates)
            deltas[rows, :, :made] = self._deltas(draws).to(deltas)
            going = ~(estimates[rows] <= tolerance).all(1) & (made < limit)
            if not bool(going.any()):
                return values, deltas[..., : int(deltas.isfinite().flatten(0, 1).any(0).sum())], estimates
            if not game.together:
                rows, draws = rows[going], tuple(one.of_rows(going.nonzero().flatten()) for one in draws)
            turn += 1
            further = draws[0].again(min(made, limit - made), seed + _NEXT * turn)
            draws = tuple(one.joined(other) for one, other in zip(draws, further, strict=True))

    def _answer(self, draws: Draws) -> Tensor:
        """Attributions ``(R, M)``."""
        if not self.multiplies_by_inputs:
            return draws.average_gradient()
        if not self._learned:
            return draws.completed()
        found = self._explain(draws.evidence(), PathPlan(draws.n_samples)).attributions
        values, _ = draws.expected_gradients
        known = ~draws.unknown & ~draws.inconsistent & values.isfinite().all(1)
        return torch.where(known.unsqueeze(1), found, values)

    def _game(self, inputs: Any, baselines: Any, *rest: Any) -> Game:
        raise NotImplementedError(
            "MetaGradientShap does not adapt: its evidence depends on the baselines drawn. "
            "Adapt MetaIntegratedGradients instead."
        )


def _warn_of(draws: tuple[Draws, ...]) -> None:
    for one in draws:
        warn_of_rows(one.unknown, UNKNOWN)
        warn_of_rows(one.inconsistent & ~one.unknown, INCONSISTENT)


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
    assert all(isinstance(size, (int, float)) for size in noise), (
        f"stdevs are {stdevs!r}: pass a number, or a tuple of them."
    )
    if not all(size >= 0 for size in noise):
        raise RuntimeError(f"stdevs are {stdevs!r}: pass standard deviations of the noise, 0 for none.")
    assert len(given) == len(noise) == len(formatted), (
        f"There are {len(given)} baselines and {len(noise)} stdevs for {len(formatted)} inputs: pass one for each input."
    )
    distribution = tuple(samples_of(part, x) for part, x in zip(given, formatted, strict=True))
    return Game(forward_func, formatted, None, target, extra), distribution, noise
