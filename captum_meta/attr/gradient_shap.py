"""Drop-in replacement for ``captum.attr.GradientShap``."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import replace
from typing import Any

import torch
from captum.attr import GradientShap
from captum.log import log_usage
from torch import Tensor

from captum_meta import _captum
from captum_meta._captum import TargetType, TensorOrTupleOfTensorsGeneric
from captum_meta._model import wide
from captum_meta._random import uniform
from captum_meta.attr._arguments import checked
from captum_meta.attr._frontend import Frontend, Learner, count_examples, of_inputs
from captum_meta.attr._path import real
from captum_meta.evidence import Game, path_slopes
from captum_meta.evidence.rows import row_keys
from captum_meta.games.players import join
from captum_meta.types import Evidence

_REFERENCE_DRAWS = 200
_NODE = 0.5


class MetaGradientShap(Frontend, GradientShap):
    """Expected gradients over a distribution of baselines, with stratified points and a completed answer.

    Draw j of ``n_samples`` takes a baseline, adds noise to the input and differentiates at a random point of the j-th part
    of the path between them, so the draws cover the path evenly. The mean misses the change of f by a gap that is known
    from f itself; the explainer shares it out. A row costs ``n_samples`` gradients and twice as many evaluations.

    Args:
        forward_func: the model, as in Captum.
        multiply_by_inputs: False for the average gradient instead of its product with (input - baseline).
        learner: a :class:`~captum_meta.learners.MetaLearner`, the name of a shipped one, a path, or None for the default.

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

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: TensorOrTupleOfTensorsGeneric,
        baselines: Any,
        n_samples: int = 5,
        stdevs: float | tuple[float, ...] = 0.0,
        target: TargetType = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        *,
        seed: int = 0,
    ) -> TensorOrTupleOfTensorsGeneric | tuple[TensorOrTupleOfTensorsGeneric, Tensor]:
        """Explain rows; arguments as in ``captum.attr.GradientShap.attribute``, and a seed.

        Args:
            inputs, baselines, stdevs, target, additional_forward_args: as in Captum; baselines are a distribution, or a
                function that gives one.
            n_samples: draws a row, each a gradient.
            return_convergence_delta: also return, for each draw, the sum of its attributions minus the change of f.
            seed: of the draws; a row's draws depend on it and on the row alone.

        Returns:
            Attributions in the shapes of the inputs, and the deltas ``(B * n_samples,)`` if asked for.
        """
        is_tuple = _captum.is_tuple(inputs)
        draws = self._draws(inputs, baselines, n_samples, stdevs, target, additional_forward_args, seed)
        if self.multiplies_by_inputs:
            values = self._explain(draws.evidence(), n_samples).attributions
        else:
            values = draws.average_gradient()
        attributions = _captum.format_output(is_tuple, of_inputs(values, draws.game))
        return (attributions, draws.deltas()) if return_convergence_delta else attributions

    def _draws(self, inputs: Any, baselines: Any, n_samples: int, stdevs: Any, target: Any, extra: Any, seed: int) -> _Draws:
        count_examples(inputs)
        if n_samples < 1:
            raise ValueError(f"n_samples must be positive, got {n_samples}: each draw of a row is one of its gradients.")
        given = _captum.format_callable_baseline(baselines, inputs)
        assert isinstance(given[0], Tensor), (
            f"Baselines distribution has to be provided in a form of a torch.Tensor, got {type(given[0])}."
        )
        formatted = real(_captum.format_input_baseline(inputs, None)[0])
        noise = stdevs if isinstance(stdevs, tuple) else (stdevs,) * len(formatted)
        assert len(given) == len(noise) == len(formatted), (
            f"There are {len(given)} baselines and {len(noise)} stdevs for {len(formatted)} inputs: pass one for each input."
        )
        distribution = tuple(_samples(part, x) for part, x in zip(given, formatted, strict=True))
        return _Draws(Game(self.forward_func, formatted, None, target, extra), distribution, n_samples, noise, seed)

    def _game(self, inputs: Any, baselines: Any, *rest: Any) -> Game:
        raise NotImplementedError(
            "MetaGradientShap does not adapt: its evidence depends on the baselines drawn. "
            "Adapt MetaIntegratedGradients instead."
        )

    def _default_key(self, game: Game) -> Hashable:
        return 5

    def _measure_support(self, game: Game, key: Hashable) -> Evidence:
        raise NotImplementedError

    def _reference(self, game: Game) -> Tensor:
        raise NotImplementedError


class _Draws:
    """One gradient for each draw of a baseline, a noisy input and a point of the path between them.

    All tensors have the draws of one example next to each other: ``(B * n, ...)``.
    """

    def __init__(
        self, game: Game, distribution: tuple[Tensor, ...], n_samples: int, stdevs: tuple[float, ...], seed: int
    ) -> None:
        self.game, self.n_samples = game, n_samples
        keys = row_keys(game)
        rows = torch.arange(game.n_examples, device=game.device).repeat_interleave(n_samples)
        repeated = game.take(rows)
        starts = tuple(
            part[_spread_over(part, x, n_samples, keys, seed + 1009 * place).flatten()]
            for place, (part, x) in enumerate(zip(distribution, game.inputs, strict=True))
        )
        self.expected = join(
            wide(x) - wide(part).mean(0, keepdim=True) for x, part in zip(game.inputs, distribution, strict=True)
        )
        ends = tuple(
            x + (stdev * _normal(keys, (n_samples, *x.shape[1:]), seed + 17 * (place + 2)).flatten(0, 1)).to(x)
            for place, (x, stdev) in enumerate(zip(repeated.inputs, stdevs, strict=True))
        )
        part = torch.arange(n_samples, device=game.device)
        alphas = ((part + uniform(keys, (n_samples,), seed + 1)) / n_samples).flatten()
        middles = tuple(
            b + alphas.to(x).reshape(-1, *[1] * (x.dim() - 1)) * (x - b) for x, b in zip(ends, starts, strict=True)
        )
        self.delta = join(wide(x) - wide(b) for x, b in zip(ends, starts, strict=True))
        one, last = torch.ones(1), _with_inputs(repeated, ends)
        self.change = last.at(one).flatten() - _with_inputs(last, starts).at(one).flatten()
        self.slopes = path_slopes(_with_inputs(last, middles), one)[0].squeeze(-1)

    def _mean(self, values: Tensor) -> Tensor:
        return values.unflatten(0, (-1, self.n_samples)).mean(1)

    def evidence(self) -> Evidence:
        """The mean over the draws, as a path of one point.

        Differences from the baselines are a control variate, as their mean over the whole distribution is known: what the
        draws estimate is the covariance of gradients and differences, and not the product of their means. A linear model's
        attributions are so exact from any draws.
        """
        slope = self._mean(self.slopes)
        repeated, expected = (part.repeat_interleave(self.n_samples, 0) for part in (slope, self.expected))
        covariance = self._mean((self.slopes - repeated) * (self.delta - expected))
        effects = (slope * self.expected + covariance * self.n_samples / max(1, self.n_samples - 1)).unsqueeze(-1)
        total = self._mean(self.change) - (slope * (self._mean(self.delta) - self.expected)).sum(1)
        return Evidence(
            effects=effects,
            measured=torch.ones_like(effects, dtype=torch.bool),
            players=self.game.mask,
            total=total,
            curve=(total * _NODE).unsqueeze(-1),
            points=torch.full_like(total, _NODE).unsqueeze(-1),
        )

    def average_gradient(self) -> Tensor:
        """The mean over the draws, ``(B, M)``."""
        return self._mean(self.slopes)

    def deltas(self) -> Tensor:
        """Each draw's own gap, ``(B * n,)``."""
        return (self.slopes * self.delta).sum(1) - self.change


def _samples(baselines: Any, x: Tensor) -> Tensor:
    """The distribution of one input's baselines, ``(K, *features)``; of a number itself alone."""
    if not isinstance(baselines, Tensor):
        return torch.full_like(x[:1], baselines)
    assert baselines.shape[1:] == x.shape[1:], "The samples in input and baseline batches must have the same shape."
    if len(baselines) == 0:
        raise ValueError("The distribution of baselines is empty: pass at least one.")
    return baselines.detach().to(x)


def _spread_over(baselines: Tensor, x: Tensor, n_samples: int, keys: Tensor, seed: int) -> Tensor:
    """Indices ``(B, n)`` of baselines, one from each stratum of them along the direction from their mean to the input.

    The strata are met in random order, so that they are unrelated to those of the path.
    """
    count = len(baselines)
    mean = baselines.mean(0)
    along = join([x - mean]).double() @ join([baselines - mean]).double().T
    order = along.argsort(dim=-1, stable=True)
    strata = uniform(keys, (n_samples,), seed + 2).argsort(dim=-1)
    places = (strata + uniform(keys, (n_samples,), seed)) / n_samples * count
    return order.gather(1, places.long().clamp(max=count - 1))


def _with_inputs(game: Game, inputs: tuple[Tensor, ...]) -> Game:
    """The same game at other inputs."""
    return game.of(replace(game.batch, inputs=inputs))


def _normal(keys: Tensor, shape: tuple[int, ...], seed: int) -> Tensor:
    return torch.special.ndtri(uniform(keys, shape, seed).clamp(1e-12, 1 - 1e-12))
