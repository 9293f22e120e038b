"""Methods under comparison: a problem and a number of evaluations a row in, attributions ``(B, M)`` out.

The budget is counted alike for all: a forward is 1, a gradient is 3. Captum's KernelShap and shapiq's approximators
evaluate the empty and the full coalition within their budget; ours have them from the forwards of their gradients.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from captum.attr import IntegratedGradients, KernelShap, ShapleyValueSampling
from torch import Tensor

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.benchmark.heldout import HeldOutProblem
from captum_meta.estimators import gauss_legendre
from captum_meta.evidence import Game, measure_shapley
from captum_meta.evidence.measure import measure_path

Method = Callable[[HeldOutProblem, int], Tensor]
_GRADIENTS = 9


def _arguments(problem: HeldOutProblem) -> dict[str, Any]:
    return {"baselines": problem.baselines, "target": problem.target, "feature_mask": problem.feature_mask}


def _players(problem: HeldOutProblem, values: Tensor) -> Tensor:
    """Attributions of Captum's shapes, a group's value repeated, as ``(B, M)``."""
    players = problem.game().players
    return players.collect((values,)) / players.collect((torch.ones_like(values),))


def _ours(rows: int, learner: str, problem: HeldOutProblem, budget: int) -> Tensor:
    attr = MetaKernelShap(problem.model, learner=learner)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        gradients = _GRADIENTS if problem.family != "trees" else 2
        n_samples = max(0, budget - gradients)
        if rows:
            support = problem.support_inputs[:rows]
            attr.adapt(support, problem.support_baselines[:rows], problem.support_target[:rows], None, problem.feature_mask)
        values = attr.attribute(problem.inputs, **_arguments(problem), n_samples=n_samples)
    return _players(problem, values)


def zero_shot(problem: HeldOutProblem, budget: int) -> Tensor:
    """MetaKernelShap without adaptation."""
    return _ours(0, "zero-shot", problem, budget)


def ridge_16(problem: HeldOutProblem, budget: int) -> Tensor:
    """MetaKernelShap adapted by ridge to 16 explained rows."""
    return _ours(16, "ridge", problem, budget)


def captum_kernel_shap(problem: HeldOutProblem, budget: int) -> Tensor:
    """Captum's KernelShap."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(0)
        values = KernelShap(problem.model).attribute(
            problem.inputs, **_arguments(problem), n_samples=budget, perturbations_per_eval=budget
        )
    return _players(problem, values)


def captum_shapley_sampling(problem: HeldOutProblem, budget: int) -> Tensor:
    """Captum's ShapleyValueSampling, with as many permutations as the budget pays for (at least one)."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        permutations = max(1, budget // problem.n_players)
        method = ShapleyValueSampling(problem.model)
        values = method.attribute(problem.inputs, **_arguments(problem), n_samples=permutations)
    return _players(problem, values)


def border_mean(problem: HeldOutProblem, budget: int) -> Tensor:
    """(Leave-one-out + add-one-in) / 2, the gap spread evenly; 2M coalitions whatever the budget."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evidence = measure_shapley(problem.game(), 2 * problem.n_players)
    return _even(evidence.effects[..., 3:].mean(-1), evidence.total)


def gradient_mean(problem: HeldOutProblem, budget: int) -> Tensor:
    """Mean of the gradients at the ends, times the input's difference from the baseline, the gap spread evenly."""
    evidence = measure_shapley(problem.game(), 0)
    return _even(evidence.effects[..., [0, 2]].mean(-1), evidence.total)


def _even(values: Tensor, total: Tensor) -> Tensor:
    return values + ((total - values.sum(1)) / values.shape[1]).unsqueeze(1)


def _shapiq(name: str, problem: HeldOutProblem, budget: int, **arguments: object) -> Tensor:
    """An approximator of shapiq on each row's game."""
    import shapiq.approximator as approximators

    whole, n_players = problem.game(), problem.n_players
    rows = []
    for row in range(len(problem.inputs)):
        game = whole.take(torch.tensor([row]))

        def worth(members: np.ndarray, game: Game = game) -> np.ndarray:
            return game.worths(torch.as_tensor(np.atleast_2d(members), dtype=torch.bool)[None])[0, :, 0].double().numpy()

        approximator = getattr(approximators, name)(n=n_players, random_state=row, **arguments)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            values = approximator.approximate(min(budget, 2**n_players), worth)
        rows.append([float(values[(player,)]) for player in range(n_players)])
    return torch.tensor(rows)


def shapiq_kernel_shap(problem: HeldOutProblem, budget: int) -> Tensor:
    """shapiq's KernelSHAP: paired, border sizes enumerated first."""
    return _shapiq("KernelSHAP", problem, budget, pairing_trick=True)


def shapiq_kadd_shap(problem: HeldOutProblem, budget: int) -> Tensor:
    """shapiq's kADD-SHAP of order 2, paired."""
    return _shapiq("kADDSHAP", problem, budget, max_order=2, pairing_trick=True)


def shapiq_permutations(problem: HeldOutProblem, budget: int) -> Tensor:
    """shapiq's permutation sampling."""
    return _shapiq("PermutationSamplingSV", problem, budget)


def shapiq_svarm(problem: HeldOutProblem, budget: int) -> Tensor:
    """shapiq's SVARM."""
    return _shapiq("SVARM", problem, budget)


def path_zero_shot(problem: HeldOutProblem, budget: int) -> Tensor:
    """MetaIntegratedGradients without adaptation, ``budget`` gradients (and two forwards)."""
    attr = MetaIntegratedGradients(problem.model, learner="zero-shot")
    values = attr.attribute(problem.inputs, problem.baselines, problem.target, n_steps=budget)
    return problem.game().players.collect((values,))


def captum_path(problem: HeldOutProblem, budget: int) -> Tensor:
    """Captum's IntegratedGradients with ``budget`` gradients."""
    values = IntegratedGradients(problem.model).attribute(problem.inputs, problem.baselines, problem.target, n_steps=budget)
    return problem.game().players.collect((values,))


def captum_path_completed(problem: HeldOutProblem, budget: int) -> Tensor:
    """Captum's IntegratedGradients with one gradient more, which ours spends on f(x) and f(baseline), and its gap spread."""
    evidence, _ = measure_path(problem.game(), gauss_legendre(budget + 1)[0])
    values = evidence.effects @ gauss_legendre(budget + 1)[1].to(evidence.effects)
    elements = problem.inputs[0].numel()
    even = values + ((evidence.total - values.sum(1)) / elements).unsqueeze(1)
    return problem.game().players.collect((even.reshape(problem.inputs.shape),))


SHAPLEY: dict[str, Method] = {
    "MetaKernelShap, zero-shot": zero_shot,
    "MetaKernelShap, 16 rows": ridge_16,
    "gradient mean": gradient_mean,
    "(leave-one-out + add-one-in) / 2": border_mean,
    "Captum KernelShap": captum_kernel_shap,
    "Captum ShapleyValueSampling": captum_shapley_sampling,
    "shapiq KernelSHAP": shapiq_kernel_shap,
    "shapiq kADD-SHAP": shapiq_kadd_shap,
    "shapiq permutations": shapiq_permutations,
    "shapiq SVARM": shapiq_svarm,
}
PATH: dict[str, Method] = {
    "MetaIntegratedGradients, zero-shot": path_zero_shot,
    "Captum IntegratedGradients": captum_path,
    "Captum, one more, completed": captum_path_completed,
}
