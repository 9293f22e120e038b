"""What the model's output does as the players go, or come, in the order of their attributions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from captum_meta.functional._arguments import Reduction, Tensors, check_count, reduce
from captum_meta.functional._explained import ExplainedModel, pairs
from captum_meta.functional._ranks import descending_ranks


def deletion_auc(
    forward_func: Callable[..., Any],
    attributions: Tensors,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    n_steps: int = 10,
    normalise: bool = False,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Area under the output while players go to the baseline, greatest attribution first.

    .. math:: \int_0^1 f\big(x_{-T(q)}\big)\,dq

    where :math:`T(q)` is the share :math:`q` of players with the greatest attributions, by the trapezoidal rule. Range:
    the output's (for probabilities [0, 1]). Lower is better.

    Args:
        attributions, inputs: ``(B, *features)``; with a feature mask ``attributions`` may be ``(B, groups)``.
        baselines, target, additional_forward_args, feature_mask: as for Captum's methods; a group goes as one.
        n_steps: trapezoids; at most one per player.
        normalise: scale the output to 1 at the input and 0 at the baseline.
        max_rows: rows given to ``forward_func`` at once.

    Reference: Petsiuk, Das and Saenko, *RISE*, BMVC 2018 (arXiv:1806.07421).

    >>> x = torch.tensor([[4.0, 0.0]])
    >>> deletion_auc(lambda x: x.sum(1), x, x)
    tensor(1.)
    """
    model = ExplainedModel.of(forward_func, inputs, baselines, target, additional_forward_args, feature_mask)
    return reduce(_area(model, model.players.values(attributions), False, n_steps, normalise, max_rows), reduction)


def insertion_auc(
    forward_func: Callable[..., Any],
    attributions: Tensors,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    n_steps: int = 10,
    normalise: bool = False,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Area under the output while players come to the baseline, greatest attribution first.

    .. math:: \int_0^1 f\big(x_{T(q)}\big)\,dq

    Range: the output's (for probabilities [0, 1]). Higher is better. Arguments and symbols: :func:`deletion_auc`.

    Reference: Petsiuk, Das and Saenko, *RISE*, BMVC 2018 (arXiv:1806.07421).

    >>> x = torch.tensor([[4.0, 0.0]])
    >>> insertion_auc(lambda x: x.sum(1), x, x)
    tensor(3.)
    """
    model = ExplainedModel.of(forward_func, inputs, baselines, target, additional_forward_args, feature_mask)
    return reduce(_area(model, model.players.values(attributions), True, n_steps, normalise, max_rows), reduction)


FRACTIONS = (0.01, 0.05, 0.1, 0.2, 0.5)


def comprehensiveness(
    forward_func: Callable[..., Any],
    attributions: Tensors,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Fall of the output without the players of greatest attribution, averaged over fractions of the players.

    .. math:: \frac1{|Q|} \sum_{q \in Q} f(x) - f\big(x_{-T(q)}\big)

    where :math:`T(q)` are the :math:`\lceil qM \rceil` players with the greatest attributions. Range: differences of
    outputs (for probabilities [-1, 1]). Higher is better.

    Args:
        attributions, inputs: ``(B, *features)``; with a feature mask ``attributions`` may be ``(B, groups)``.
        baselines, target, additional_forward_args, feature_mask: as for Captum's methods; a group goes as one.
        fractions: the set Q.
        max_rows: rows given to ``forward_func`` at once.

    Reference: DeYoung et al., *ERASER*, ACL 2020 (arXiv:1911.03429).

    >>> x = torch.tensor([[4.0, 1.0]])
    >>> comprehensiveness(lambda x: x.sum(1), x, x, fractions=[0.5])
    tensor(4.)
    """
    model = ExplainedModel.of(forward_func, inputs, baselines, target, additional_forward_args, feature_mask)
    return reduce(_mean_fall(model, model.players.values(attributions), False, fractions, max_rows), reduction)


def sufficiency(
    forward_func: Callable[..., Any],
    attributions: Tensors,
    inputs: Tensors,
    baselines: Any = None,
    target: Any = None,
    additional_forward_args: Any = None,
    feature_mask: Tensors | None = None,
    *,
    fractions: Sequence[float] = FRACTIONS,
    max_rows: int = 256,
    reduction: Reduction = "mean",
) -> Float[Tensor, "*reduced"]:
    r"""Fall of the output with the players of greatest attribution alone, averaged over fractions of the players.

    .. math:: \frac1{|Q|} \sum_{q \in Q} f(x) - f\big(x_{T(q)}\big)

    Range: differences of outputs (for probabilities [-1, 1]). Lower is better. Arguments and symbols:
    :func:`comprehensiveness`.

    Reference: DeYoung et al., *ERASER*, ACL 2020 (arXiv:1911.03429).

    >>> x = torch.tensor([[4.0, 1.0]])
    >>> sufficiency(lambda x: x.sum(1), x, x, fractions=[0.5])
    tensor(1.)
    """
    model = ExplainedModel.of(forward_func, inputs, baselines, target, additional_forward_args, feature_mask)
    return reduce(_mean_fall(model, model.players.values(attributions), True, fractions, max_rows), reduction)


def _area(model: ExplainedModel, values: Tensor, insert: bool, n_steps: int, normalise: bool, max_rows: int) -> Tensor:
    check_count(n_steps, "n_steps")
    n_steps = min(n_steps, values.shape[1])
    players = model.players.counts.unsqueeze(1)
    steps = torch.arange(n_steps + 1, device=values.device)
    counts = (2 * players * steps + n_steps) // (2 * n_steps)
    curve = _outputs(model, values, counts, insert, max_rows)
    return torch.trapezoid(_scaled(curve, insert) if normalise else curve, (counts / players).to(curve.dtype), dim=1)


def _scaled(curve: Tensor, insert: bool) -> Tensor:
    nothing, everything = (curve[:, :1], curve[:, -1:]) if insert else (curve[:, -1:], curve[:, :1])
    if (everything == nothing).any():
        rows = (everything == nothing).flatten().nonzero().flatten().tolist()
        raise ValueError(
            f"the output at the input equals the one at the baseline in rows {rows[:8]}, so their curves have no "
            "scale: pass normalise=False, or leave these rows out."
        )
    return (curve - nothing) / (everything - nothing)


def _mean_fall(model: ExplainedModel, values: Tensor, alone: bool, fractions: Sequence[float], max_rows: int) -> Tensor:
    if not fractions or not all(0 <= fraction <= 1 for fraction in fractions):
        raise ValueError(f"fractions is {fractions}: pass shares of the players, from 0 to 1, at least one.")
    players = model.players.counts.unsqueeze(1)
    shares = torch.tensor(fractions, dtype=torch.float32, device=values.device)
    # The slack keeps a product such as 0.2 * 15, in floating point above 3, from being rounded up to 4.
    counts = (shares * players - 1e-4).ceil().long().clamp(min=0)
    whole = players if alone else torch.zeros_like(players)
    outputs = _outputs(model, values, torch.cat([whole, counts], 1), alone, max_rows)
    return (outputs[:, :1] - outputs[:, 1:]).mean(1)


def _outputs(model: ExplainedModel, values: Tensor, counts: Tensor, alone: bool, max_rows: int) -> Tensor:
    """Outputs ``(B, S)`` with the ``counts`` ``(B, S)`` players of greatest value alone, or without them."""
    rank = descending_ranks(values, model.players.present)
    outputs = []
    for rows, steps in pairs(len(counts), counts.shape[1], max_rows, values.device):
        top = rank[rows] < counts[rows, steps].unsqueeze(1)
        outputs.append(model.coalitions(rows, top if alone else ~top))
    return torch.cat(outputs).view(counts.shape)
