"""Methods under comparison: a problem and a number of evaluations per row in, attributions ``(B, M)`` out.

The budget is counted alike for all: a forward is 1, a gradient is 3. Captum's KernelShap and the approximators of shapiq
and shap evaluate the empty and the full coalition within their budget; ours have them from the forwards of their gradients.
Path methods are given gradients instead, of which Captum's spend as many, and ours besides them three forwards.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

from torch import Tensor

from captum_meta.attr import MetaIntegratedGradients, MetaKernelShap
from captum_meta.benchmark import modern_peers, peers
from captum_meta.benchmark.problem import Problem, completed, player_sums, player_values
from captum_meta.evidence import measure_shapley
from captum_meta.learners import MetaLearner

Method = Callable[[Problem, int], Tensor]
Learner = MetaLearner | str | None
ZERO_SHOT, ADAPTED = "MetaKernelShap, zero-shot", "MetaKernelShap, 16 rows"
GRADIENT_MEAN, BORDER_MEAN = "gradient mean", "(leave-one-out + add-one-in) / 2"
PATH_ZERO_SHOT, PATH_ADAPTED = "MetaIntegratedGradients, zero-shot", "MetaIntegratedGradients, 16 rows"


def shapley_learner(learner: Learner, adapt: bool) -> Method:
    """MetaKernelShap with a learner, adapted to the problem's support rows or not."""

    def method(problem: Problem, budget: int) -> Tensor:
        attr = MetaKernelShap(problem.model, learner=learner)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if adapt:
                attr.adapt(**support_arguments(problem, "shapley"))
            return explain_shapley(attr, problem, budget)

    return method


def explain_shapley(attr: MetaKernelShap, problem: Problem, budget: int) -> Tensor:
    """Attributions for ``budget`` evaluations per row."""
    n_samples = max(0, budget - problem.base_cost)
    return player_values(problem, attr.attribute(**problem.arguments, n_samples=n_samples, seed=problem.seed))


def path_learner(learner: Learner, adapt: bool) -> Method:
    """MetaIntegratedGradients with a learner, adapted to the problem's support rows or not."""

    def method(problem: Problem, budget: int) -> Tensor:
        attr = MetaIntegratedGradients(problem.model, learner=learner)
        if adapt:
            attr.adapt(**support_arguments(problem, "path"))
        return explain_path(attr, problem, budget)

    return method


def explain_path(attr: MetaIntegratedGradients, problem: Problem, budget: int) -> Tensor:
    """Attributions for ``budget`` gradients per row."""
    return player_sums(problem, attr.attribute(**problem.path_arguments, n_steps=budget))


def support_arguments(problem: Problem, kind: str) -> dict[str, Any]:
    """What ``adapt`` is given."""
    assert problem.support is not None, "there are no rows to adapt to"
    return {key: value for key, value in problem.support.items() if kind == "shapley" or key != "feature_mask"}


def border_mean(problem: Problem, budget: int) -> Tensor:
    """(Leave-one-out + add-one-in) / 2, the gap spread evenly; 2M coalitions whatever the budget."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        evidence = measure_shapley(problem.game(), 2 * problem.n_players)
    return completed(evidence.effects[..., 3:].mean(-1), evidence.total)


def gradient_mean(problem: Problem, budget: int) -> Tensor:
    """Mean of the gradients at the ends, times the input's difference from the baseline, the gap spread evenly."""
    evidence = measure_shapley(problem.game(), 0)
    return completed(evidence.effects[..., [0, 2]].mean(-1), evidence.total)


SHAPLEY: dict[str, Method] = {
    ZERO_SHOT: shapley_learner("zero-shot", adapt=False),
    ADAPTED: shapley_learner(None, adapt=True),
    GRADIENT_MEAN: gradient_mean,
    BORDER_MEAN: border_mean,
    "Captum KernelShap": peers.captum_kernel_shap,
    "Captum ShapleyValueSampling": peers.captum_shapley_sampling,
    "shapiq KernelSHAP": partial(peers.shapiq, name="KernelSHAP", pairing_trick=True),
    "shapiq kADD-SHAP": partial(peers.shapiq, name="kADDSHAP", max_order=2, pairing_trick=True),
    "shapiq permutations": partial(peers.shapiq, name="PermutationSamplingSV"),
    "shapiq SVARM": partial(peers.shapiq, name="SVARM"),
    **modern_peers.MODERN,
    "shap KernelExplainer": peers.shap_kernel,
    "shap PermutationExplainer": peers.shap_permutation,
}
PATH: dict[str, Method] = {
    PATH_ZERO_SHOT: path_learner("zero-shot", adapt=False),
    PATH_ADAPTED: path_learner(None, adapt=True),
    "Captum IntegratedGradients": peers.captum_path,
    "Captum, one more, completed": peers.captum_path_completed,
}
METHODS: dict[str, dict[str, Method]] = {"shapley": SHAPLEY, "path": PATH}


def installed(method: str) -> bool:
    """Whether the library that a method comes from can be imported, here or by the Python named for it."""
    if method in modern_peers.MODERN:
        return modern_peers.available()
    library = method.split()[0]
    return library not in ("shap", "shapiq") or find_spec(library) is not None


def adapted_methods(kind: str, learners: Mapping[str, MetaLearner]) -> dict[str, Method]:
    """Further learners of ours, each adapted to 16 rows, by the names they are shown with."""
    make, prefix = (shapley_learner, "MetaKernelShap") if kind == "shapley" else (path_learner, "MetaIntegratedGradients")
    return {f"{prefix}, {name}, 16 rows": make(learner, adapt=True) for name, learner in learners.items()}
