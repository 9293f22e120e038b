"""How much attributions change when the inputs change a little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum import metrics as captum_metrics
from jaxtyping import Float
from torch import Tensor

from captum_meta.functional._arguments import Reduction, Tensors, check_count, reduce, widen
from captum_meta.functional._explained import ExplanationFunction, pairs
from captum_meta.functional._random import row_keys, uniform


def max_sensitivity(
    explanation_func: Callable[..., Any],
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    perturb_radius: float = 0.02,
    n_perturb_samples: int = 10,
    norm_ord: Any = "fro",
    seed: int = 0,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Greatest relative change of the attributions near the input, by ``captum.metrics.sensitivity_max``.

    .. math:: \max_{\|x' - x\|_\infty \le r} \frac{\|\phi(x') - \phi(x)\|}{\|\phi(x)\|}

    over random :math:`x'`; the denominator is 1 where the attributions are zero. Range: :math:`[0, \infty)`. Lower is
    better.

    Args:
        explanation_func: such as the ``attribute`` of a Captum method.
        inputs: floating, ``(B, *features)``.
        baselines, target, additional_forward_args, feature_mask: passed on to ``explanation_func`` where given and
            where it has such an argument; a group of the mask counts once in the norm.
        perturb_radius: r.
        n_perturb_samples: perturbed inputs a row.
        norm_ord: the norm, as for ``torch.norm``.
        seed: of the perturbations, which depend on it and on the row alone.
        max_rows: rows explained at once; at least the batch is.

    Reference: Yeh et al., *On the (In)fidelity and Sensitivity of Explanations*, NeurIPS 2019 (arXiv:1901.09392).

    >>> max_sensitivity(lambda x: torch.ones_like(x), torch.tensor([[4.0, 1.0]]))
    tensor(0.)
    """
    explain = _of_floating_inputs(explanation_func, inputs, baselines, target, additional_forward_args, feature_mask)
    check_count(n_perturb_samples, "n_perturb_samples")
    check_count(max_rows, "max_rows")
    keys, drawn = row_keys(explain.inputs, seed), 0

    def perturb_next(expanded: Tensors) -> tuple[Tensor, ...]:
        nonlocal drawn
        first = expanded[0] if isinstance(expanded, tuple) else expanded
        times = len(first) // explain.n_rows
        steps = torch.arange(drawn, drawn + times, device=keys.device).repeat(explain.n_rows)
        drawn += times
        return _perturbed(explain, keys, _interleaved(explain, times), steps, perturb_radius)

    def explained(variants: Tensors) -> tuple[Tensor]:
        parts = variants if isinstance(variants, tuple) else (variants,)
        return (explain(parts, _interleaved(explain, len(parts[0]) // explain.n_rows)),)

    values = captum_metrics.sensitivity_max(
        explained,
        explain.inputs,
        perturb_func=perturb_next,
        n_perturb_samples=n_perturb_samples,
        norm_ord=norm_ord,
        max_examples_per_batch=min(max(max_rows, explain.n_rows), explain.n_rows * n_perturb_samples),
    )
    return reduce(values, reduction)


def local_lipschitz(
    explanation_func: Callable[..., Any],
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    perturb_radius: float = 0.02,
    n_perturb_samples: int = 10,
    seed: int = 0,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Greatest change of the attributions near the input, relative to the inputs' own change.

    .. math:: \max_{\|x' - x\|_\infty \le r} \frac{\|\phi(x') - \phi(x)\|_2}{\|x' - x\|_2}

    over random :math:`x'`. Range: :math:`[0, \infty)`. Lower is better. Arguments: :func:`max_sensitivity`.

    Reference: Alvarez-Melis and Jaakkola, *On the Robustness of Interpretability Methods*, 2018 (arXiv:1806.08049).

    >>> local_lipschitz(lambda x: 2 * x, torch.zeros(1, 2))
    tensor(2.)
    """
    explain = _of_floating_inputs(explanation_func, inputs, baselines, target, additional_forward_args, feature_mask)
    check_count(n_perturb_samples, "n_perturb_samples")
    keys, original, flat = row_keys(explain.inputs, seed), explain.at_inputs(max_rows), _flat(explain.inputs)
    ratios = []
    for rows, steps in pairs(explain.n_rows, n_perturb_samples, max_rows, keys.device):
        variants = _perturbed(explain, keys, rows, steps, perturb_radius)
        change = (explain(variants, rows) - original[rows]).norm(dim=1)
        distance = (_flat(variants) - flat[rows]).norm(dim=1)
        ratios.append(change / distance.clamp(min=torch.finfo(distance.dtype).tiny))
    return reduce(torch.cat(ratios).view(explain.n_rows, -1).amax(1), reduction)


def _of_floating_inputs(*given: Any) -> ExplanationFunction:
    explain = ExplanationFunction.of(*given)
    if not all(part.is_floating_point() for part in explain.inputs):
        raise ValueError(
            f"inputs are {[part.dtype for part in explain.inputs]}, to which no small noise can be added: pass "
            "floating inputs, such as embeddings."
        )
    return explain


def _flat(parts: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([widen(part).reshape(len(part), -1) for part in parts], 1)


def _interleaved(explain: ExplanationFunction, times: int) -> Tensor:
    return torch.arange(explain.n_rows, device=explain.inputs[0].device).repeat_interleave(times)


def _perturbed(explain: ExplanationFunction, keys: Tensor, rows: Tensor, steps: Tensor, radius: float) -> tuple[Tensor, ...]:
    """``rows`` with noise that is uniform in the ball of the maximum norm."""
    width = sum(shape.numel() for shape in explain.players.shapes)
    noise = explain.players.unflatten((2 * uniform(keys[rows], steps, width) - 1) * radius)
    pairs_of = zip(explain.inputs, noise, strict=True)
    return tuple((widen(part)[rows] + change).to(part.dtype) for part, change in pairs_of)
