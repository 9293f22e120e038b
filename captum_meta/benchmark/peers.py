"""Peers: methods of Captum, shapiq and shap, each spending at most the evaluations per row that it is given."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from captum.attr import IntegratedGradients, KernelShap, ShapleyValueSampling
from torch import Tensor

from captum_meta.benchmark.problem import Problem, completed, player_sums, player_values
from captum_meta.estimators import gauss_legendre
from captum_meta.evidence import Game, measure_path


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Global random numbers of torch and numpy, which these libraries draw from, seeded here and put back behind."""
    state = np.random.get_state()
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.manual_seed(seed)
        np.random.seed(seed)
        try:
            yield
        finally:
            np.random.set_state(state)


def captum_kernel_shap(problem: Problem, budget: int) -> Tensor:
    """Captum's KernelShap, which evaluates f(x) once more than its samples."""
    arguments = {"n_samples": budget - 1, "perturbations_per_eval": min(budget, problem.game().evaluation.max_rows)}
    with seeded(problem.seed):
        return player_values(problem, KernelShap(problem.model).attribute(**problem.arguments, **arguments))


def captum_shapley_sampling(problem: Problem, budget: int) -> Tensor:
    """Captum's ShapleyValueSampling, with as many permutations as the budget pays for (at least one)."""
    permutations = max(1, budget // problem.n_players)
    with seeded(problem.seed):
        method = ShapleyValueSampling(problem.model)
        return player_values(problem, method.attribute(**problem.arguments, n_samples=permutations))


class RowGame:
    """One row's worth of coalitions ``(S, M)`` given as zeros and ones; the two ends are evaluated only once."""

    def __init__(self, game: Game) -> None:
        self.game = game
        self.ends: dict[bool, float] = {}

    def __call__(self, members: np.ndarray) -> np.ndarray:
        members = np.atleast_2d(members).astype(bool)
        inside = members.any(1) & ~members.all(1)
        values = np.zeros(len(members))
        if inside.any():
            values[inside] = self._evaluate(members[inside])
        for index in np.flatnonzero(~inside):
            values[index] = self._end(members[index])
        return values

    def _end(self, members: np.ndarray) -> float:
        full = bool(members.all())
        if full not in self.ends:
            self.ends[full] = float(self._evaluate(members[None])[0])
        return self.ends[full]

    def _evaluate(self, members: np.ndarray) -> np.ndarray:
        coalitions = torch.as_tensor(members, device=self.game.device)[None]
        return self.game.values(coalitions)[0, :, 0].double().cpu().numpy()


def by_row(problem: Problem, explain: Callable[[RowGame, int], np.ndarray]) -> Tensor:
    rows = []
    game = problem.game()
    for row in range(game.n_examples):
        worth = RowGame(game.take(torch.tensor([row], device=game.device)))
        with seeded(problem.seed + row):
            rows.append(torch.tensor(np.asarray(explain(worth, problem.seed + row)), dtype=torch.float32))
    return torch.stack(rows).to(game.device)


def shapiq(
    problem: Problem, budget: int, name: str, groups: Sequence[Sequence[int]] | None = None, **arguments: object
) -> Tensor:
    """Values ``(B, groups)`` of groups of players, by default of each player, by an approximator of shapiq."""
    import shapiq.approximator as approximators

    n_players = problem.n_players
    groups = groups or [[player] for player in range(n_players)]

    def explain(worth: RowGame, seed: int) -> np.ndarray:
        approximator = getattr(approximators, name)(n=n_players, random_state=seed, **arguments)
        values = approximator.approximate(min(budget, 2**n_players), worth)
        return np.array([float(values[tuple(group)]) for group in groups])

    return by_row(problem, explain)


def shap_kernel(problem: Problem, budget: int) -> Tensor:
    """shap's KernelExplainer over presence and absence of the players; all features kept (``l1_reg=False``)."""
    from shap import KernelExplainer

    ones = np.ones((1, problem.n_players))

    def explain(worth: RowGame, seed: int) -> np.ndarray:
        explainer = KernelExplainer(worth, 0 * ones)
        return explainer.shap_values(ones, nsamples=budget - 2, l1_reg=False, silent=True)[0]

    return by_row(problem, explain)


def shap_permutation(problem: Problem, budget: int) -> Tensor:
    """shap's PermutationExplainer: antithetic permutations, as many pairs as the budget pays for (at least one)."""
    from shap import PermutationExplainer

    n_players = problem.n_players
    ones = np.ones((1, n_players))
    pairs = max(1, (budget - 2) // max(1, 2 * (n_players - 1)))

    def explain(worth: RowGame, seed: int) -> np.ndarray:
        # A function as masker spares the compilation that an array of zeros would bring with it.
        explainer = PermutationExplainer(worth, lambda mask, x: (x * mask)[None], seed=seed)
        return explainer(ones, max_evals=pairs * (2 * n_players + 1), silent=True).values[0]

    return by_row(problem, explain)


def captum_path(problem: Problem, budget: int) -> Tensor:
    """Captum's IntegratedGradients with ``budget`` gradients."""
    return player_sums(problem, IntegratedGradients(problem.model).attribute(**problem.path_arguments, n_steps=budget))


def captum_path_completed(problem: Problem, budget: int) -> Tensor:
    """Captum's IntegratedGradients with one gradient more, which ours spends on f at three points; its gap spread evenly."""
    game = problem.game()
    evidence, *_ = measure_path(game, gauss_legendre(budget + 1)[0])
    values = evidence.effects @ gauss_legendre(budget + 1)[1].to(evidence.effects)
    elements = completed(values, evidence.total).split([part[0].numel() for part in game.inputs], dim=1)
    return player_sums(problem, tuple(e.reshape(x.shape) for e, x in zip(elements, game.inputs, strict=True)))
