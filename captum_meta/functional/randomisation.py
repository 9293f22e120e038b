"""Whether attributions depend on what the model has learnt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from captum_meta.functional._arguments import Reduction, Tensors, reduce
from captum_meta.functional._explained import ExplanationFunction
from captum_meta.functional.agreement import rank_correlation_of_players


def parameter_randomisation(
    method: Callable[[nn.Module], Any],
    model: nn.Module,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    absolute: bool = False,
    seed: int = 0,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Spearman's correlation of the attributions with those of the model whose layers are randomised in a cascade.

    .. math:: \frac1L \sum_{l=1}^L \rho\big(\phi_f(x), \phi_{f_l}(x)\big)

    where in :math:`f_l` the last ``l`` of the ``L`` layers that have parameters (in the order of ``model.modules()``)
    are drawn anew, each parameter from the normal distribution of its own mean and variance. Range: [-1, 1]. Lower is
    better: a method that does not see the parameters scores 1.

    Args:
        method: makes the method for a module: ``Saliency``, or ``lambda module: NoiseTunnel(Saliency(module))``. It is
            given copies, so ``model`` is left as it is.
        model: the explained model, an ``nn.Module``.
        inputs: ``(B, *features)``.
        baselines, target, additional_forward_args, feature_mask: passed on to the method's ``attribute`` where given
            and where it has such an argument; a group of the mask counts once.
        absolute: compare magnitudes.
        seed: of the random parameters.
        max_rows: rows explained at once.

    Reference: Adebayo et al., *Sanity Checks for Saliency Maps*, NeurIPS 2018 (arXiv:1810.03292).

    >>> blind = lambda module: lambda inputs: inputs
    >>> parameter_randomisation(blind, nn.Linear(3, 1), torch.tensor([[4.0, 1.0, 2.0]]))
    tensor(1.)
    """
    if not isinstance(model, nn.Module):
        raise TypeError(f"model is a {type(model).__name__}, which has no layers to randomise: pass an nn.Module.")

    def explain(module: nn.Module) -> tuple[Tensor, Tensor]:
        made = method(module)
        attribute, given = getattr(made, "attribute", made), (baselines, target, additional_forward_args, feature_mask)
        explanation = ExplanationFunction.of(attribute, inputs, *given)
        values = explanation.at_inputs(max_rows)
        return values.abs() if absolute else values, explanation.players.present

    # Copies made in inference mode could not be differentiated.
    with torch.inference_mode(False):
        original, present = explain(deepcopy(model))
        similarities = [
            rank_correlation_of_players(original, explain(module)[0], present) for module in _cascade(model, seed)
        ]
    return reduce(torch.stack(similarities).mean(0), reduction)


def _cascade(model: nn.Module, seed: int) -> Iterator[nn.Module]:
    """One copy of ``model``, randomised by one layer more at each turn, last layer first."""
    copied = deepcopy(model)
    layers = [layer for layer in copied.modules() if list(layer.parameters(recurse=False))]
    if not layers:
        raise ValueError(f"{type(model).__name__} has no parameters to randomise: pass a module that has.")
    generator = torch.Generator().manual_seed(seed)
    for layer in reversed(layers):
        for parameter in layer.parameters(recurse=False):
            _draw_anew(parameter, generator)
        yield copied


def _draw_anew(parameter: Tensor, generator: torch.Generator) -> None:
    with torch.no_grad():
        values = parameter.float()
        noise = torch.randn(parameter.shape, generator=generator).to(parameter.device)
        parameter.copy_(values.mean() + values.std(unbiased=False) * noise)
