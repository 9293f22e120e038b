"""`captum-meta benchmark background`: Shapley values of the mean over background rows, at equal numbers of evaluations.

A budget counts evaluations of pairs of a coalition and a background row, for each row explained; f of the row and of the
background rows is known to all. Errors are against all pairs, over 8 rows, a mean over seeds.
"""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from math import ceil
from statistics import geometric_mean

import torch
from rich.console import Console
from rich.table import Table
from torch import Generator, Tensor

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.background_models import BackgroundProblem, background_problems
from captum_meta.benchmark.peers import seeded
from captum_meta.benchmark.problem import completed
from captum_meta.benchmark.tables import table_of
from captum_meta.functional import attribution_error

_BUDGETS, _SEEDS = (16, 64, 256), 3
_ADAPTED_BUDGETS = (4, 8, 16)
_RATIOS = ("ours / better of the sampled", "KernelExplainer evaluations / ours")
Method = Callable[[BackgroundProblem, int, int], Tensor]


def ours(problem: BackgroundProblem, budget: int, seed: int) -> Tensor:
    """MetaKernelShap."""
    attr = MetaKernelShap(problem.model, learner="zero-shot")
    return attr.attribute(problem.inputs, background=problem.background, n_samples=budget, seed=seed)


def adapted(problem: BackgroundProblem, budget: int, seed: int, support: int) -> Tensor:
    """MetaKernelShap after rows halfway between two of the background, with 4M pairs each."""
    attr = MetaKernelShap(problem.model, learner="zero-shot")
    rows = (problem.background[:support] + problem.background[-support:]) / 2
    attr.adapt(rows, background=problem.background)
    return attr.attribute(problem.inputs, background=problem.background, n_samples=budget, seed=seed)


def mean_of_explanations(problem: BackgroundProblem, budget: int, seed: int) -> Tensor:
    """MetaKernelShap against one background row at a time, with the border and a gradient three times for each."""
    n_players = problem.inputs.shape[1]
    count = min(max(1, budget // (2 * n_players + 9)), len(problem.background))
    drawn = problem.background[torch.randperm(len(problem.background), generator=Generator().manual_seed(seed))[:count]]
    attr = MetaKernelShap(problem.model, learner="zero-shot")
    n_samples = max(2 * n_players, budget // count - 9)
    found = [attr.attribute(problem.inputs, row.unsqueeze(0), n_samples=n_samples, seed=seed) for row in drawn]
    return _completed(problem, torch.stack(found).mean(0))


def permutations(problem: BackgroundProblem, budget: int, seed: int) -> Tensor:
    """Antithetic pairs of permutations, each with a background row drawn at random; ends are free."""
    n_players = problem.inputs.shape[1]
    pairs, generator = max(1, budget // (2 * (n_players - 1))), Generator().manual_seed(seed)
    found = []
    for row in problem.inputs:
        order = torch.rand(pairs, n_players, generator=generator).argsort(1)
        behind = problem.background[torch.randint(len(problem.background), (pairs,), generator=generator)].unsqueeze(1)
        total = torch.zeros(n_players)
        for rank in (order.argsort(1), order.flip(1).argsort(1)):
            members = rank.unsqueeze(1) < torch.arange(n_players + 1).reshape(1, -1, 1)
            worths = problem.model(torch.where(members, row, behind).flatten(0, 1)).unflatten(0, (pairs, -1))
            total += worths.diff(dim=1).gather(1, rank).sum(0) / (2 * pairs)
        found.append(total)
    return _completed(problem, torch.stack(found))


def kernel_shap(problem: BackgroundProblem, budget: int, seed: int) -> Tensor:
    """Coalitions with their complements, drawn by kernel mass, each pair with a background row drawn at random."""
    n_players, generator = problem.inputs.shape[1], Generator().manual_seed(seed)
    sizes = torch.arange(1, n_players)
    found = []
    for row in problem.inputs:
        drawn = torch.multinomial(1.0 / (sizes * (n_players - sizes)), budget // 2, True, generator=generator)
        order = torch.rand(budget // 2, n_players, generator=generator).argsort(1)
        members = order.argsort(1) < sizes[drawn].unsqueeze(1)
        behind = problem.background[torch.randint(len(problem.background), (budget // 2,), generator=generator)]
        odd = problem.model(torch.where(members, row, behind)) - problem.model(torch.where(members, behind, row))
        signs = members.double() * 2 - 1
        gram = signs.T @ signs + 1e-9 * torch.eye(n_players)
        ones = torch.ones(n_players, dtype=torch.float64)
        free, direction = torch.linalg.solve(gram, torch.stack([signs.T @ odd.double(), ones], 1)).T
        total = (problem.model(row.unsqueeze(0))[0] - problem.model(problem.background).mean()).double()
        found.append(free + direction * (total - free.sum()) / direction.sum())
    return torch.stack(found)


def shap_kernel(problem: BackgroundProblem, coalitions: int, seed: int) -> Tensor:
    """shap.KernelExplainer, which evaluates each coalition with all background rows."""
    import shap

    def model(rows: object) -> object:
        return problem.model(torch.as_tensor(rows).float()).numpy()

    with seeded(seed):
        explainer = shap.KernelExplainer(model, problem.background.numpy())
        values = explainer.shap_values(problem.inputs.numpy(), nsamples=coalitions, l1_reg=False, silent=True)
    return torch.as_tensor(values)


def _completed(problem: BackgroundProblem, values: Tensor) -> Tensor:
    return completed(values, problem.model(problem.inputs) - problem.model(problem.background).mean())


METHODS: dict[str, Method] = {
    "MetaKernelShap": ours,
    "permutations": permutations,
    "paired KernelSHAP": kernel_shap,
    "mean of explanations": mean_of_explanations,
}


def errors(problem: BackgroundProblem, method: Method, budget: int) -> float:
    """Mean over the seeds."""
    values = [method(problem, budget, seed) for seed in range(_SEEDS)]
    return sum(float(attribution_error(value.double(), problem.values)) for value in values) / _SEEDS


def shap_evaluations(problem: BackgroundProblem, error: float) -> int:
    """Evaluations per row with which shap.KernelExplainer has at most this error, to three tenths."""
    n_players = problem.inputs.shape[1]
    coalitions = n_players + 1
    while coalitions < 2**n_players - 2:
        if float(attribution_error(shap_kernel(problem, coalitions, 0).double(), problem.values)) <= error:
            break
        coalitions = ceil(1.3 * coalitions)
    return min(coalitions, 2**n_players - 2) * len(problem.background)


def main(arguments: Sequence[str]) -> None:
    """Errors against background rows at 16M, 64M and 256M evaluations, and what shap.KernelExplainer needs for the same."""
    parser = ArgumentParser(prog="captum-meta benchmark background", description=main.__doc__)
    text = "instead: errors at 4M, 8M and 16M after adapting to so many rows, beside those without"
    parser.add_argument("--support", type=int, nargs="+", metavar="ROWS", default=[], help=text)
    support = parser.parse_args(arguments).support
    torch.set_num_threads(1)
    console = Console(width=200)
    if support:
        console.print(adaptation(background_problems(), support))
        return
    ratios = {multiple: (list[float](), list[float]()) for multiple in _BUDGETS}
    for name, make in background_problems().items():
        problem = make()
        columns = ("evaluations", *METHODS, *_RATIOS)
        table = table_of(f"{name}: error against all pairs of coalitions and background rows", columns)
        n_players = problem.inputs.shape[1]
        for multiple in _BUDGETS:
            budget = multiple * n_players
            found = {label: errors(problem, method, budget) for label, method in METHODS.items()}
            ratio = found["MetaKernelShap"] / min(found["permutations"], found["paired KernelSHAP"])
            cells = [f"{error:.5f}" for error in found.values()]
            ratios[multiple][0].append(ratio)
            theirs = "shap is not installed"
            if find_spec("shap"):
                ratios[multiple][1].append(shap_evaluations(problem, found["MetaKernelShap"]) / budget)
                theirs = f"{ratios[multiple][1][-1]:.0f}"
            table.add_row(f"{multiple}M", *cells, f"{ratio:.3f}", theirs)
        console.print(table)
    console.print(summary(ratios))


def adaptation(problems: Mapping[str, Callable[[], BackgroundProblem]], support: Sequence[int]) -> Table:
    """Errors of each model and budget before adapting, and after adapting to each of these numbers of rows."""
    columns = ("model", "evaluations", "not adapted", *(f"after {count} rows" for count in support))
    table = table_of("Error against all pairs of coalitions and background rows", columns, ("model",))
    for name, make in problems.items():
        problem = make()
        for multiple in _ADAPTED_BUDGETS:
            methods: list[Method] = [ours, *(partial(adapted, support=count) for count in support)]
            found = [errors(problem, method, multiple * problem.inputs.shape[1]) for method in methods]
            table.add_row(name, f"{multiple}M", *(f"{error:.4f}" for error in found))
    return table


def summary(ratios: Mapping[int, tuple[Sequence[float], Sequence[float]]]) -> Table:
    """Geometric means over the models, least and most, of both ratios by multiple of M."""
    table = table_of("All models: geometric mean (least to most)", ("evaluations", *_RATIOS))
    for multiple, both in ratios.items():
        cells = [f"{geometric_mean(some):.3g} ({min(some):.3g} to {max(some):.3g})" if some else "" for some in both]
        table.add_row(f"{multiple}M", *cells)
    return table
