"""Rows of held-out models with their evidence and the attributions that learners are adapted to and judged by."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from captum_meta.attr import MetaKernelShap
from captum_meta.benchmark.heldout import HeldOutProblem, reference
from captum_meta.benchmark.problem import Problem, player_values, some_rows
from captum_meta.evidence import Game, measure_support, with_elements
from captum_meta.types import Evidence, Explanations


def query_rows(problem: HeldOutProblem, coalitions: int, references: Path) -> Explanations:
    """The rows to be explained, at so many coalitions each, with their reference from the folder ``references``."""
    return Explanations(_evidence(problem.game(), coalitions), reference(problem, "shapley", references))


def support_rows(problem: HeldOutProblem, coalitions: int, references: Path, beside: int = 0) -> Explanations:
    """64 rows with the attributions that ``adapt`` would compute for them, kept in the folder ``references``.

    Learners that read coalitions of support rows are given ``beside`` of each.
    """
    arguments = dict(problem.all_support)
    path = references / f"{problem.name.replace('/', '_')}-support.pt"
    if path.is_file():
        labels = torch.load(path, weights_only=True)
    else:
        n_players = problem.n_players
        budget = 2**n_players - 2 if n_players <= 12 else 32 * n_players
        attr = MetaKernelShap(problem.model, learner="zero-shot")
        parts = []
        for some in torch.arange(len(arguments["inputs"])).split(8):
            these = some_rows(arguments, some)
            found = attr.attribute(**these, n_samples=budget)
            parts.append(player_values(Problem(model=problem.model, arguments=these), found))
        labels = torch.cat(parts)
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save(labels, path)
    return Explanations(_evidence(Game(problem.model, **arguments), coalitions, beside), labels)


def _evidence(game: Game, coalitions: int, beside: int = 0) -> Evidence:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return with_elements(measure_support(game, coalitions, beside), game)
