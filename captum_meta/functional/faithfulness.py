"""Whether attributions add up to what the model's output does when random players go to the baseline."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from captum import metrics as captum_metrics
from jaxtyping import Float
from torch import Tensor

from captum_meta._model import unmoved_random_state
from captum_meta.functional._arguments import Reduction, Tensors, check_count, reduce
from captum_meta.functional._explained import ExplainedModel, pairs
from captum_meta.functional._random import row_keys, uniform
from captum_meta.functional._ranks import correlation, descending_ranks


def completeness_error(
    forward_func: Callable[..., Any],
    attributions: Tensors,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""How far attributions are from summing up to the output's difference from the baseline.

    .. math:: \Big|\sum_i \phi_i - \big(f(x) - f(x')\big)\Big|

    Range: :math:`[0, \infty)`, in units of the output. Lower is better. The magnitude of Captum's convergence delta.

    Args:
        attributions, inputs: ``(B, *features)``; with a feature mask ``attributions`` may be ``(B, groups)``.
        baselines, target, additional_forward_args, feature_mask: as for Captum's methods; a group counts once.
        max_rows: rows given to ``forward_func`` at once.

    Reference: Sundararajan, Taly and Yan, *Axiomatic Attribution for Deep Networks*, ICML 2017 (arXiv:1703.01365).

    >>> x = torch.tensor([[4.0, 1.0]])
    >>> completeness_error(lambda x: x.sum(1), x - 1, x)
    tensor(2.)
    """
    model = ExplainedModel.of(forward_func, inputs, baselines, target, additional_forward_args, feature_mask)
    explained = model.players.values(attributions).sum(1)
    whole = model.players.present
    outputs = [
        model.coalitions(rows, whole[rows] & (steps == 1).unsqueeze(1))
        for rows, steps in pairs(model.n_rows, 2, max_rows, model.device)
    ]
    ends = torch.cat(outputs).view(-1, 2)
    return reduce((explained - (ends[:, 1] - ends[:, 0])).abs(), reduction)


def infidelity(
    forward_func: Callable[..., Any],
    attributions: Tensors,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    perturb_func: Callable[..., Any] | None = None,
    n_perturb_samples: int = 10,
    normalise: bool = False,
    seed: int = 0,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Expected squared gap between the change of f by attributions and by the model, by ``captum.metrics.infidelity``.

    .. math:: E_{I} \Big[\big(I^\top \phi - (f(x) - f(x_I))\big)^2\Big]

    where :math:`I` marks random players, each with probability 1/2, that go to the baseline in :math:`x_I`. Range:
    :math:`[0, \infty)`, in squared units of the output. Lower is better.

    Args:
        attributions, inputs: ``(B, *features)``; with a feature mask ``attributions`` may be ``(B, groups)``.
        baselines, target, additional_forward_args, feature_mask: as for Captum's methods; a group goes as one.
        perturb_func: other perturbations, with Captum's contract. Attributions that are not multiplied by the inputs,
            such as Saliency's, need one: for instance ``lambda x: (noise := 0.1 * torch.randn_like(x), x - noise)``.
        n_perturb_samples: perturbations per row.
        normalise: scale the attributions to fit best first, as Captum does.
        seed: of the default perturbations, which depend on it and on the row alone.
        max_rows: rows given to ``forward_func`` at once.

    Reference: Yeh et al., *On the (In)fidelity and Sensitivity of Explanations*, NeurIPS 2019 (arXiv:1901.09392).

    >>> x = torch.tensor([[4.0, 1.0]])
    >>> infidelity(lambda x: x.sum(1), x, x)
    tensor(0.)
    """
    check_count(n_perturb_samples, "n_perturb_samples")
    check_count(max_rows, "max_rows")
    model = ExplainedModel.of(forward_func, inputs, baselines, target, additional_forward_args, feature_mask)
    shares = model.players.shares(model.players.values(attributions))
    rows = torch.arange(model.n_rows, device=model.device)

    def outputs(*perturbed: Tensor) -> Tensor:
        repeated = rows.repeat_interleave(len(perturbed[0]) // model.n_rows)
        chunks = torch.split(torch.arange(len(repeated), device=model.device), max_rows)
        return torch.cat([model.outputs(tuple(part[c] for part in perturbed), repeated[c]) for c in chunks])

    with unmoved_random_state(model.device):
        values = captum_metrics.infidelity(
            outputs,
            perturb_func or _RandomRemoval(model, seed),
            model.inputs,
            shares,
            baselines=None if perturb_func is None else baselines,
            n_perturb_samples=n_perturb_samples,
            max_examples_per_batch=min(max(max_rows, model.n_rows), model.n_rows * n_perturb_samples),
            normalize=normalise,
        )
    return reduce(values, reduction)


class _RandomRemoval:
    """Perturbations as Captum asks for them, the next few of every row at each call."""

    def __init__(self, model: ExplainedModel, seed: int) -> None:
        self.model = model
        self.keys = row_keys(model.inputs, seed)
        self.drawn = 0

    def __call__(self, inputs: Tensors) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        model = self.model
        parts = inputs if isinstance(inputs, tuple) else (inputs,)
        times = len(parts[0]) // model.n_rows
        rows = torch.arange(model.n_rows, device=model.device).repeat_interleave(times)
        steps = torch.arange(self.drawn, self.drawn + times, device=model.device).repeat(model.n_rows)
        self.drawn += times
        removed = uniform(self.keys[rows], steps, model.players.present.shape[1]) < 0.5
        marks = model.players.take(rows).of_elements(removed)
        mixed = zip(marks, parts, model.baselines, strict=True)
        return tuple(mark.float() for mark in marks), tuple(torch.where(m, b[rows], x) for m, x, b in mixed)


def faithfulness_correlation(
    forward_func: Callable[..., Any],
    attributions: Tensors,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    n_perturb_samples: int = 100,
    fraction: float = 0.2,
    seed: int = 0,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Correlation of the removed players' attributions with the fall of the output, over random subsets of a size.

    .. math:: \mathrm{corr}_{S} \Big(\sum_{i \in S} \phi_i,\; f(x) - f(x_{-S})\Big)

    0 where either side is constant. Range: [-1, 1]. Higher is better.

    Args:
        attributions, inputs: ``(B, *features)``; with a feature mask ``attributions`` may be ``(B, groups)``.
        baselines, target, additional_forward_args, feature_mask: as for Captum's methods; a group goes as one.
        n_perturb_samples: subsets per row, at least 2.
        fraction: of the players that a subset has, rounded up.
        seed: of the subsets, which depend on it and on the row alone.
        max_rows: rows given to ``forward_func`` at once.

    Reference: Bhatt, Weller and Moura, *Evaluating and Aggregating Feature-based Model Explanations*, IJCAI 2020
    (arXiv:2005.00631).

    >>> x = torch.tensor([[4.0, 1.0, 2.0]])
    >>> faithfulness_correlation(lambda x: x.sum(1), x, x)
    tensor(1.)
    """
    if n_perturb_samples < 2 or not 0 < fraction <= 1:
        raise ValueError(
            f"n_perturb_samples is {n_perturb_samples} and fraction {fraction}: a correlation needs 2 subsets or "
            "more, of a share of the players above 0 and up to 1."
        )
    model = ExplainedModel.of(forward_func, inputs, baselines, target, additional_forward_args, feature_mask)
    values, players = model.players.values(attributions), model.players
    sizes = (fraction * players.counts - 1e-4).ceil().clamp(min=1)
    keys = row_keys(model.inputs, seed)
    outputs, sums = [], []
    for rows, steps in pairs(model.n_rows, n_perturb_samples, max_rows, model.device):
        order = descending_ranks(uniform(keys[rows], steps, values.shape[1]), players.present[rows])
        removed = order < sizes[rows].unsqueeze(1)
        outputs.append(model.coalitions(rows, ~removed))
        sums.append((values[rows] * removed).sum(1))
    # f(x) is the same for all subsets: the correlation does not see it.
    fall = -torch.cat(outputs).view(-1, n_perturb_samples)
    explained = torch.cat(sums).view_as(fall)
    return reduce(correlation(explained.to(fall.dtype), fall, torch.ones_like(fall, dtype=torch.bool)), reduction)
