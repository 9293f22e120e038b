"""Explanation tasks of small nets, measured as by a front end: elements, gradients, coalitions of support rows."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from captum_meta.estimators import all_coalitions, shapley_values
from captum_meta.evidence import Game, measure_shapley, measure_support, with_elements
from captum_meta.tasks import SyntheticTaskFamily
from captum_meta.training.steps import split
from captum_meta.types import Explanations, ExplanationTask

PLAYERS = torch.tensor([[0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5]])
N_PLAYERS, N_INPUTS, ROWS = 6, 11, 6
QUERIES = 4


def net(seed: int, dead: int | None = None) -> nn.Module:
    """A curved function of eleven numbers with two outputs, which does not read the elements of player ``dead``."""
    generator = torch.Generator().manual_seed(seed)
    model = nn.Sequential(nn.Linear(N_INPUTS, 16), nn.Tanh(), nn.Linear(16, 2)).requires_grad_(False)
    for layer, size in ((model[0], 0.5), (model[2], 0.4)):
        layer.weight.copy_(size * normal(layer.weight.shape, generator))
        layer.bias.copy_(size * normal(layer.bias.shape, generator))
    if dead is not None:
        model[0].weight[:, PLAYERS[0] == dead] = 0
    return model


def explained_task(
    seed: int, query_budget: int, evaluations: int = 16 * N_PLAYERS, dead: int | None = None
) -> ExplanationTask:
    """Support rows with their border and coalitions for so many ``evaluations``, and queries with so many coalitions."""
    model, generator = net(seed, dead), torch.Generator().manual_seed(1000 + seed)
    x = normal((ROWS + QUERIES, N_INPUTS), generator)
    support, query = (
        Game(model, rows, target=torch.arange(len(rows)) % 2, feature_mask=PLAYERS) for rows in (x[:ROWS], x[ROWS:])
    )
    return ExplanationTask(
        Explanations(measure_support(support, 2 * N_PLAYERS, evaluations), exact(support)),
        Explanations(with_elements(measure_shapley(query, query_budget), query), exact(query)),
    )


def normal(shape: tuple[int, ...], generator: torch.Generator) -> Tensor:
    """Rounded to 1/64: which coalitions are drawn for a row follows from its bits, and not all processors' are alike."""
    return (64 * torch.randn(shape, generator=generator)).round() / 64


def exact(game: Game) -> Tensor:
    """Shapley values ``(N, M)`` of the selected output, by enumeration."""
    return shapley_values(game.values(all_coalitions(N_PLAYERS).expand(game.n_rows, -1, -1)).squeeze(-1))


def explained_tasks(query_budget: int, evaluations: int = 16 * N_PLAYERS) -> ExplanationTask:
    """Three models side by side."""
    return ExplanationTask.stack([explained_task(seed, query_budget, evaluations) for seed in range(3)])


def synthetic_task() -> ExplanationTask:
    """Rows of one synthetic model, in double precision, with exact labels."""
    rows = SyntheticTaskFamily("shapley", tasks_per_batch=1, rows=9, seed=5)[2].to(dtype=torch.float64)
    return split(replace(rows, evidence=replace(rows.evidence, coalitions=None), variance=None), 6)[0]
