"""Drop-in replacement for ``captum.attr.LayerGradientShap``."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

import torch
from captum.attr import LayerGradientShap
from captum.log import log_usage
from torch import Tensor, nn

from captum_meta import _captum
from captum_meta._captum import TargetType
from captum_meta.attr._arguments import check_layers, check_model, checked
from captum_meta.attr._draws import DrawnPaths, Draws, measured
from captum_meta.attr._graph import refuse_with_graph
from captum_meta.attr._graph_layers import drawn_of_layers
from captum_meta.attr._layers import OfLayers, Values, outputs_of, parts_like
from captum_meta.attr._path import real
from captum_meta.attr._selection import of_outputs, selection, side_by_side
from captum_meta.attr.gradient_shap import distribution_of
from captum_meta.evidence import Game
from captum_meta.evidence.path import own_output_gradients
from captum_meta.games.layer import LayerModel
from captum_meta.games.layer_path import ShiftedLayers
from captum_meta.games.players import Tensors, join

_DRAWS = 5


class MetaLayerGradientShap(OfLayers, LayerGradientShap):
    r"""Expected gradients of a layer over a distribution of baselines, with stratified draws.

    .. math:: \mathbb{E}_{b, t}\left[\frac{\partial f}{\partial h_j}(b + t (x - b))\, (h_j(x) - h_j(b))\right]

    Draw j of ``n_samples`` takes a baseline, adds noise to the input and differentiates at a random point of the j-th part
    of the path between them. Where there is one input, the mean of the layer over all baselines is a control variate. A row
    costs ``n_samples`` gradients and twice as many evaluations, four times as many with the deltas.

    Args:
        forward_func: the model, as in Captum.
        layer: the module.
        device_ids: as in Captum, not needed: a model in ``DataParallel`` is run through its ``module``, on its first device.
        multiply_by_inputs: False for the average gradient instead of its product with the activations' difference.

    Reference: Erion et al., *Improving performance of deep learning models with axiomatic attribution priors and expected
    gradients*, Nature Machine Intelligence 2021.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Tanh(), torch.nn.Linear(3, 2))
    >>> MetaLayerGradientShap(model, model[1]).attribute(torch.randn(5, 4), torch.randn(20, 4), target=1).shape
    torch.Size([5, 3])
    """

    def __init__(
        self,
        forward_func: Callable[..., Any],
        layer: nn.Module,
        device_ids: list[int] | None = None,
        multiply_by_inputs: bool = True,
    ) -> None:
        check_model(forward_func)
        check_layers(layer)
        LayerGradientShap.__init__(self, forward_func, layer, device_ids, multiply_by_inputs)

    @log_usage(part_of_slo=True)
    @checked
    def attribute(
        self,
        inputs: Tensor | tuple[Tensor, ...],
        baselines: Any,
        n_samples: int | None = None,
        stdevs: float | tuple[float, ...] = 0.0,
        target: TargetType = None,
        additional_forward_args: Any = None,
        return_convergence_delta: bool = False,
        attribute_to_layer_input: bool = False,
        *,
        outputs: Literal["all"] | Sequence[int] | None = None,
        return_error_estimate: bool = False,
        seed: int = 0,
        create_graph: bool = False,
    ) -> Values | tuple[Values, Tensor] | tuple[Values, Tensor, Tensor]:
        """Explain rows; arguments as in ``captum.attr.LayerGradientShap.attribute``, and those behind the star.

        Args:
            inputs, baselines, stdevs, target, additional_forward_args, attribute_to_layer_input: as in Captum.
            n_samples, return_convergence_delta, outputs, return_error_estimate, seed, create_graph: as in
                :meth:`MetaGradientShap.attribute`; the graph reaches the inputs, too.

        Returns:
            Attributions in the shapes of the activations, then, if asked for, the deltas ``(B * n,)`` and the estimates
            ``(B,)``. With ``outputs`` each has a dimension of them behind the first.
        """
        if n_samples == 0:
            raise ValueError("n_samples must be positive, got 0: each draw of a row is one of its gradients.")
        given = self._moved((inputs, baselines, stdevs, selection(target, outputs), additional_forward_args))
        game, distribution, noise = distribution_of(self._model, *given)
        if create_graph:
            refuse_with_graph(
                outputs=outputs,
                return_convergence_delta=return_convergence_delta,
                return_error_estimate=return_error_estimate,
            )
            layers = LayerModel(self._model, self._layers, attribute_to_layer_input)
            attached = real(_captum.format_input_baseline(given[0], None)[0])
            drawn_from = (game, distribution, noise, n_samples or _DRAWS, seed, self.multiplies_by_inputs)
            return self._shaped(layers, drawn_of_layers(layers, attached, *drawn_from))
        outputs_of(game)
        model = ShiftedLayers(self._model, self._layers, attribute_to_layer_input)
        paths = DrawnPaths.of(game, distribution, noise, n_samples or _DRAWS, seed)
        draws, end = _draws(model, paths, game, distribution, noise, n_samples or _DRAWS, return_convergence_delta)
        multiply, shape = self.multiplies_by_inputs, () if outputs is None else tuple(game.output_shape)
        each = [one.expected_gradients[0] if multiply else one.average_gradient() for one in draws]
        deltas = [one.deltas(multiply).flatten() for one in draws] if return_convergence_delta else []
        pairs = zip(draws, each, strict=True)
        errors = [one.error(found, multiply) for one, found in pairs] if return_error_estimate else []
        attributions: Any = self._shaped(model, side_by_side([parts_like(end, found) for found in each], shape))
        asked = [of_outputs(part, shape) for part in (deltas, errors) if part]
        return (attributions, *asked) if asked else attributions


def _draws(
    model: ShiftedLayers,
    paths: DrawnPaths,
    game: Game,
    distribution: Tensors,
    noise: tuple[float, ...],
    n_samples: int,
    with_change: bool,
) -> tuple[list[Draws], Tensors]:
    """Each output's draws as of a game whose players are the layer's elements, and what it gives at the paths' ends."""
    last = paths.standing(game, paths.ends)
    extra, most = last.extra or (), game.evaluation.max_rows
    start, end = (model.activations(side, extra, most) for side in (paths.starts, paths.ends))
    nothing = tuple(torch.zeros_like(part) for part in end)
    shifted = Game(model, (*nothing, *paths.middles), None, last.target, last.extra)
    gradients = measured(own_output_gradients(shifted)[0][:, : sum(part[0].numel() for part in end)], n_samples)
    delta = (join(end) - join(start)).to(gradients)
    expected = delta.unflatten(0, (-1, n_samples)).mean(1)
    if len(distribution) == 1 and not extra and len(distribution[0]) <= len(delta):
        everything = join(model.activations(distribution, (), most)).to(gradients).mean(0)
        expected = join(end).to(gradients).unflatten(0, (-1, n_samples)).mean(1) - everything
    change = torch.zeros_like(gradients[:, 0])
    if with_change:
        sides = (game.of(last), game.of(paths.standing(game, paths.starts)))
        after, before = (side.at(torch.ones(1))[:, 0] for side in sides)
        change = after - before
    shared = (game, distribution, noise, n_samples, expected, delta)
    return [Draws(*shared, *one) for one in zip(change.unbind(-1), gradients.unbind(-1), strict=True)], end
