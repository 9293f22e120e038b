"""Small problems with known answers."""

from itertools import permutations

import torch
from torch import Tensor

from captum_meta.benchmark.problem import Problem
from captum_meta.learners import ZeroShot
from captum_meta.nn import PathExplainer, ShapleyExplainer
from captum_meta.types import Kind


def untrained(kind: Kind) -> ZeroShot:
    """An explainer before training."""
    explainer = {"shapley": ShapleyExplainer, "path": PathExplainer}[kind]  # type: ignore[index]
    return ZeroShot(explainer(width=16, depth=1)).eval()


def small_net(n_players: int, n_outputs: int = 2) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(n_players, 16), torch.nn.Tanh(), torch.nn.Linear(16, n_outputs))


def small_problem(n_players: int = 6, n_rows: int = 3, **changes: object) -> Problem:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(n_rows, n_players, generator=generator)
    b = torch.randn(n_rows, n_players, generator=generator)
    support = {"inputs": torch.randn(4, n_players, generator=generator), "target": 1}
    given = {"model": small_net(n_players), "arguments": {"inputs": x, "baselines": b, "target": 1}, "support": support}
    return Problem(**{**given, **changes})  # type: ignore[arg-type]


def brute_force(problem: Problem) -> Tensor:
    """Mean gain of each player over all orders in which they can join."""
    x, b = problem.arguments["inputs"], problem.arguments["baselines"]
    values = torch.zeros(x.shape, dtype=torch.float64)
    orders = list(permutations(range(x.shape[1])))
    for row in range(len(x)):
        for order in orders:
            mixed = b[row].clone()
            before = problem.model(mixed[None])[0, 1].item()
            for player in order:
                mixed[player] = x[row, player]
                after = problem.model(mixed[None])[0, 1].item()
                values[row, player] += (after - before) / len(orders)
                before = after
    return values
